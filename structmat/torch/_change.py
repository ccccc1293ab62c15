"""The change of a layer and its gradients, without autograd: row by row, in chunks of rows that stay in cache.

A change is ``gain D C D ... D`` of stored vectors; a step is a circulant with the diagonal to its right. With ``G`` the
transform of the gradient g behind a circulant and ``U`` that of what it was applied to, g goes back through it as
``conj(S) G``, and its own gradient has the transform ``conj(U) G``, summed over the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

__all__ = [
    "Working",
    "change_rows",
    "chunked_change",
    "chunked_gradients",
    "dense_change",
    "dense_gradients",
    "weight_plus_change",
]

# On a CPU, measured on one and two threads. A chunk has so many elements at most, or it leaves the cache; more threads
# get as much each. Below, the cost of calls counts.
_CHUNK = 2**17
# Rows are transformed so many at once; what is left over, one by one.
_TOGETHER = 16
# Batches give as many chunks at least: temporaries stay smaller than what the layer takes and returns, and the system
# need not give and take their memory each time. Chunks of fewer elements than the second number are an exception: there
# the cost of calls counts. With 64 rows of 384 in float32 one chunk takes 0.4 ms for the gradients, four take 0.7.
_LEAST = 4
_SMALL = 2**15
# On other devices chunks only bound the memory of temporaries.
_DEVICE_CHUNK = 2**26
# Entries of a dense change that are computed at once: they stay in cache, and the cost of calls is small.
_PIECE = 2**16


# ---- some rows


class Working(NamedTuple):
    """The vectors of a change as they are applied to rows."""

    diagonals: list[Tensor]
    """(m,) each, leftmost first, which is multiplied by the gain."""
    grids: list[Tensor]
    """Half spectra of the circulants between them: (h,) of a single block, else (p, q, h)."""
    sides: list[int]
    """Sides of the circulants."""
    dtype: torch.dtype
    """That all is computed in: never below float32, which no transform on a CPU is."""
    chunk: int
    """How many rows are computed at once."""

    @classmethod
    def of(cls, vectors: Sequence[Tensor], gain: float, x: Tensor, y: Tensor) -> Working:
        """Prepare vectors for rows on the last axis of inputs x and outputs y, or their gradient."""
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        for vector in vectors:
            dtype = torch.promote_types(dtype, vector.dtype)
        diagonals, grids, sides, width = [gain * vectors[0].to(dtype)], [], [], vectors[0].shape[0]
        for circulants, diagonal in zip(vectors[1::2], vectors[2::2], strict=True):
            p, q, side = circulants.shape
            grid = torch.fft.rfft(circulants.to(dtype))
            single = p == q == 1 and diagonals[-1].shape == diagonal.shape == (side,)
            grids.append(grid.flatten() if single else grid)
            sides.append(side)
            diagonals.append(diagonal.to(dtype))
            width = max(width, p * side, q * side)
        if x.device.type != "cpu":
            return cls(diagonals, grids, sides, dtype, max(_TOGETHER, _DEVICE_CHUNK // width))
        most = _CHUNK * max(2, torch.get_num_threads()) // 2 // width
        rows = min(most, max(_SMALL // width, x.numel() // x.shape[-1] // _LEAST))
        return cls(diagonals, grids, sides, dtype, max(1, rows // _TOGETHER) * _TOGETHER)

    def adjoints(self) -> list[Tensor]:
        """Return the half spectra of the adjoint circulants: (h,) or (q, p, h)."""
        turned = (grid if grid.ndim == 1 else grid.transpose(0, 1) for grid in self.grids)
        return [grid.conj().resolve_conj() for grid in turned]


class _Kept(NamedTuple):
    """What the gradients of one step are made of."""

    spectrum: Tensor
    """(R, h) or (R, q, h): the transform of the step's scaled input."""
    output: Tensor | None
    """(R, m): the circulant's product with it; None for the leftmost circulant, where it is not computed yet."""


def _transformed(rows: Tensor, grid: Tensor, side: int) -> Tensor:
    """Return the transform of rows (R, n), cut into blocks: (R, h), or (R, q, h) for a grid of several circulants."""
    if grid.ndim == 1:
        return torch.fft.rfft(rows)
    missing = grid.shape[1] * side - rows.shape[1]
    blocks = (pad(rows, (0, missing)) if missing else rows).reshape(rows.shape[0], grid.shape[1], side)
    return torch.fft.rfft(blocks)


def _product(spectrum: Tensor, grid: Tensor, side: int, size: int, *, overwrite: bool) -> Tensor:
    """Return the product (R, size) of a grid of circulants with rows, of which the transform is given.

    The transform may be overwritten if the caller says so: its memory is in the cache, that of a new tensor is not.
    """
    if grid.ndim == 1:
        return torch.fft.irfft(spectrum.mul_(grid) if overwrite else spectrum * grid, n=side)
    blocks = torch.fft.irfft(_contract(spectrum, grid, overwrite=overwrite), n=side)
    products = blocks.reshape(spectrum.shape[0], grid.shape[0] * side)
    return products if products.shape[1] == size else products[:, :size]


def _contract(spectrum: Tensor, grid: Tensor, *, overwrite: bool) -> Tensor:
    """Multiply, for each frequency, the rows' q values by the p x q matrix of the grid: (R, q, h) to (R, p, h)."""
    p, q, _ = grid.shape
    if q == 1:
        return spectrum * grid.squeeze(1)  # no index: exporters to ONNX have none for complex tensors
    if p > 1:
        return (spectrum.permute(2, 0, 1) @ grid.permute(2, 1, 0)).permute(1, 2, 0)
    row = grid.squeeze(0)
    return (spectrum.mul_(row) if overwrite else spectrum * row).sum(1, keepdim=True)


def change_rows(x: Tensor, working: Working, *, overwrite: bool = False) -> tuple[Tensor, Tensor]:
    """Return what the change adds to the outputs of rows `x` (R, n), as two factors; `x` is not changed.

    The change is the elementwise product of the two: callers fuse it with an addition. Where nobody differentiates
    these operations, or maps over them, temporary tensors may be overwritten.
    """
    h = x
    for k in range(len(working.grids) - 1, -1, -1):
        grid, side, size = working.grids[k], working.sides[k], working.diagonals[k].shape[0]
        h = _product(_transformed(h * working.diagonals[k + 1], grid, side), grid, side, size, overwrite=overwrite)
    return h, working.diagonals[0]


def _kept_for_gradients(x: Tensor, working: Working) -> list[_Kept]:
    """Return what the gradients of each step are made of, leftmost first, for rows `x` (R, n)."""
    kept: list[_Kept] = []
    h = x
    for k in range(len(working.grids) - 1, -1, -1):
        grid, side, size = working.grids[k], working.sides[k], working.diagonals[k].shape[0]
        spectrum = _transformed(h * working.diagonals[k + 1], grid, side)
        output = None
        if k:
            output = h = _product(spectrum, grid, side, size, overwrite=False)
        kept.append(_Kept(spectrum, output))
    kept.reverse()
    return kept


def _gradient_rows(
    dy: Tensor, working: Working, adjoints: Sequence[Tensor], kept: list[_Kept], *, overwrite: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the gradient of rows x as two factors, and those of all vectors but the last, summed over the rows.

    `dy` (R, m) is the gradient of the change, which may be overwritten. The last vector's is the sum of products of x
    and the first of the two. `kept` is emptied on the way: what is no longer needed makes room in the cache, and new
    tensors take its place. Gradients of circulants are conjugate transforms, that of the first diagonal lacks the gain:
    see `_finished`.
    """
    sums = []
    g = dy
    for k, (adjoint, side) in enumerate(zip(adjoints, working.sides, strict=True)):
        spectrum, output = kept.pop(0)
        transformed = _transformed(g * working.diagonals[k], adjoint, side)
        of_circulants = _correlated(spectrum, transformed)
        if output is None:
            output = _product(spectrum, working.grids[k], side, g.shape[1], overwrite=True)
        del spectrum
        sums += [(g.mul_(output) if overwrite else g * output).sum(0), of_circulants]
        del output
        g = _product(transformed, adjoint, side, working.diagonals[k + 1].shape[0], overwrite=True)
        del transformed
        overwrite = True
    return g, working.diagonals[-1], sums


def _correlated(spectrum: Tensor, transformed: Tensor) -> Tensor:
    """Sum products of the first with conjugates of the second over the rows: (h,); of (R, q, h), (R, p, h): (p, q, h).

    The second alone may have a batch axis, as `dy` may: the product takes the place of its conjugate.
    """
    conjugate = transformed.conj_physical()
    if spectrum.ndim == 2:
        return conjugate.mul_(spectrum).sum(0)
    if spectrum.shape[1] == 1:
        return conjugate.mul_(spectrum).sum(0).unsqueeze(1)
    if transformed.shape[1] == 1:
        return (conjugate * spectrum).sum(0).unsqueeze(0)
    return (conjugate.permute(2, 1, 0) @ spectrum.permute(2, 0, 1)).permute(1, 2, 0)


def _finished(sums: Sequence[Tensor], vectors: Sequence[Tensor], gain: float) -> list[Tensor]:
    """Return the gradients of the vectors, in their shapes and dtypes, from the sums over all rows."""
    gradients = [
        torch.fft.irfft(total.conj_physical(), n=vector.shape[2]).reshape(vector.shape) if vector.ndim == 3 else total
        for total, vector in zip(sums, vectors, strict=True)
    ]
    gradients[0] = gain * gradients[0]
    return [gradient.to(vector.dtype) for gradient, vector in zip(gradients, vectors, strict=True)]


# ---- all rows


def chunked_change(
    y: Tensor | None, x: Tensor, weight: Tensor | None, bias: Tensor | None, vectors: Sequence[Tensor], gain: float
) -> Tensor:
    """Return ``y + gain D C D x``; or, if `y` is None, ``W x + bias + gain D C D x``. None of them is changed."""
    rows = x.reshape(-1, x.shape[-1])
    if y is None:
        weight = cast("Tensor", weight)
        merges = _merges(rows, weight, vectors) if rows.shape[0] >= min(weight.shape) else False
        out = linear(rows, weight_plus_change(weight, vectors, gain) if merges else weight, bias)
        # No view, which nobody could change in place after a custom function.
        result = torch.ops.aten._unsafe_view(out, (*x.shape[:-1], weight.shape[0]))
        if merges:
            return result
        base = out = result.view(out.shape)
    else:
        result = torch.empty_like(y, memory_format=torch.contiguous_format)
        base, out = y.reshape(-1, y.shape[-1]), result.view(-1, y.shape[-1])
    working = Working.of(vectors, gain, x, base)
    dtype, size = working.dtype, working.chunk
    for xs, bases, outs in zip(rows.split(size), base.split(size), out.split(size), strict=True):
        h, scale = change_rows(xs.to(dtype), working, overwrite=True)
        if out.dtype == dtype:
            torch.addcmul(bases, h, scale, out=outs)
        else:  # rounded once, after the addition
            outs.copy_(bases.to(dtype).addcmul_(h, scale))
    return result


def chunked_gradients(
    dy: Tensor, x: Tensor, weight: Tensor | None, vectors: Sequence[Tensor], gain: float, *, needs_x: bool = True
) -> list[Tensor | None]:
    """Return the gradient of `x`, that of the weight's product included, and those of the vectors."""
    x_rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    working = Working.of(vectors, gain, x, dy)
    dtype, size, adjoints = working.dtype, working.chunk, working.adjoints()
    result = None
    if needs_x:
        # From dy, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
        result = dy.new_zeros(x.shape, dtype=x.dtype) if weight is None else (dy @ weight).contiguous()
    dx_rows = x_rows if result is None else result.view(x_rows.shape)  # the former only to have as many chunks
    totals: list[Tensor] = []
    for xs, dys, dxs in zip(x_rows.split(size), dy_rows.split(size), dx_rows.split(size), strict=True):
        wide = xs.to(dtype)
        kept = _kept_for_gradients(wide, working)
        g, scale, sums = _gradient_rows(dys.to(dtype), working, adjoints, kept, overwrite=dys.dtype != dtype)
        if result is not None and result.dtype == dtype:
            dxs.addcmul_(g, scale)
        elif result is not None:
            dxs.copy_(dxs.to(dtype).addcmul_(g, scale))
        sums.append(g.mul_(wide).sum(0))
        totals = [total.add_(part) for total, part in zip(totals, sums, strict=True)] if totals else sums
        del g  # room in the cache for the next chunk
    return [result, *_finished(totals, vectors, gain)]


# ---- a dense matrix


def _merges(rows: Tensor, weight: Tensor, vectors: Sequence[Tensor]) -> bool:
    """Whether outputs come from the weight plus the change, which loses no digits, for at least as many rows as a side.

    Products by matrices cost the same with a change in the weight as without; the matrix has no more entries than the
    larger of the inputs and the outputs. On a CPU, for three factors.
    """
    if rows.device.type != "cpu" or len(vectors) != 3 or rows.dtype != weight.dtype:
        return False
    return weight.dtype == torch.promote_types(torch.promote_types(weight.dtype, vectors[0].dtype), torch.float32)


def weight_plus_change(weight: Tensor, vectors: Sequence[Tensor], gain: float) -> Tensor:
    """Return ``W + gain D C D``, in the weight's dtype; its entries are single products: no transform."""
    return _weight_plus_change(weight, weight.shape, weight.dtype, vectors, gain)


def dense_change(shape: Sequence[int], dtype: torch.dtype, vectors: Sequence[Tensor], gain: float) -> Tensor:
    """Return ``gain D C D`` as a matrix, likewise."""
    return _weight_plus_change(None, shape, dtype, vectors, gain)


def _weight_plus_change(
    weight: Tensor | None, shape: Sequence[int], dtype: torch.dtype, vectors: Sequence[Tensor], gain: float
) -> Tensor:
    left, circulants, right = (vector.to(dtype) for vector in vectors)
    left = (gain * left)[:, None]
    (rows, cols), (p, q, b) = shape, circulants.shape
    right = pad(right, (0, q * b - cols)).reshape(q, b)
    result = circulants.new_empty(p * b, q * b)
    for here, pieces in _circulant_rows(circulants):
        change = torch.mul(pieces, right, out=result[here].view(pieces.shape)).view(-1, q * b)
        change = change[: max(0, rows - here.start), :cols]
        if weight is None:
            change.mul_(left[here])
        else:
            torch.addcmul(weight[here], change, left[here], out=change)
    return result[:rows, :cols]


def dense_gradients(gradient: Tensor, vectors: Sequence[Tensor], gain: float) -> list[Tensor]:
    """Return the gradients of the three vectors from that of the dense change, (rows, cols), in its dtype.

    It goes over the entries in the pieces of `weight_plus_change`, whose adjoint it is.
    """
    left, circulants, right = (vector.to(gradient.dtype) for vector in vectors)
    (rows, cols), (p, q, b) = gradient.shape, circulants.shape
    if (rows, cols) != (p * b, q * b):
        gradient = pad(gradient, (0, q * b - cols, 0, p * b - rows))
    scaled_left = pad(gain * left, (0, p * b - rows))
    padded_right = pad(right, (0, q * b - cols))
    # From the gradient, which alone has a batch axis where `torch.autograd.grad` maps over a batch of gradients.
    lefts, rights, sums = (gradient.new_zeros(shape) for shape in (p * b, q * b, circulants.shape))
    for here, pieces in _circulant_rows(circulants):
        s, h = pieces.shape[:2]
        part = gradient[here]
        product = part * pieces.reshape(s * h, q * b)
        lefts[here] = product @ padded_right
        rights += scaled_left[here] @ product
        # Entry (r, j) of a block belongs to the circulant's entry top + r - j. With each row written twice behind each
        # other, those of one entry of the circulant stand on one diagonal, without a wrap.
        scaled = (part * padded_right).reshape(s, h, q, b).mul_(scaled_left[here].view(s, h, 1, 1))
        twice = torch.cat((scaled, scaled), 3)
        diagonals = twice.as_strided((s, h, q, b), (h * q * 2 * b, q * 2 * b + 1, 2 * b, 1)).sum(1)
        block, top = divmod(here.start, b)
        sums[block : block + s] += diagonals.flip(2).roll(top + 1, 2)
    found = (gain * lefts[:rows], sums, rights[:cols])
    return [each.to(vector.dtype) for each, vector in zip(found, vectors, strict=True)]


def _circulant_rows(circulants: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Return rows of the matrix (p b, q b) of a grid of circulants (p, q, b), in order, as views (s, h, q, b).

    Each has all rows of s block rows, or h of one.
    """
    p, q, b = circulants.shape
    piece = _PIECE if circulants.device.type == "cpu" else _DEVICE_CHUNK
    height, several = min(b, max(1, piece // (q * b))), max(1, piece // (q * b * b))
    period = (height + 1) * b
    first_rows = circulants.flip(2).roll(1, 2)
    for i in range(0, p, several):
        # Vectors behind each other: one that starts b - 1 later is shifted by one, as the next row of a circulant is.
        repeated = first_rows[i : i + several].repeat(1, 1, height + 1)
        for top in range(0, b, height):
            shape = (len(repeated), min(height, b - top), q, b)
            here = slice(i * b + top, i * b + top + shape[0] * shape[1])
            yield here, repeated.as_strided(shape, (q * period, b - 1, period, 1), -top % b)
