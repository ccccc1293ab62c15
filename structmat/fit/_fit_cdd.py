"""`fit_cdd`: checks its arguments, fits three factors in closed form and others by a search, makes the result."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from structmat._arguments import (
    as_floating,
    as_matrix,
    integer,
    moved_like,
    non_negative,
    one_of,
    optional_function,
    random_generator,
    to_numpy,
)
from structmat._array_tools import ArgumentError, ArgumentTypeError, ArgumentValueError, dtype_name
from structmat._progress import notebook_line, show_fit
from structmat.fit._matrices import (
    column_roots,
    largest_exponent,
    product_error,
    rounding_error,
    scale_by_power_of_two,
    second_moment,
    transposed_vectors,
    truncated_svd,
    weighted_inputs,
)
from structmat.fit._products import Products
from structmat.fit._result import Control, FitProgress, FitResult, Stopped
from structmat.fit._search import KnownProduct, Search
from structmat.fit._three_factors import CLOSED_FORMS, BlockGrid, Factors, ThreeFactorSearch
from structmat.operators import CDDLayout, CDDProduct, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import ArrayLike

__all__ = ["fit_cdd"]

_OWNER = "fit_cdd"

_OF_A_START = 100
"""Iterations of a fit that another one starts from, at most, where time is limited: a share of the time would make what
follows depend on the clock."""

_DOUBLE_SIDE = 512
"""With more entries than a square of this side a matrix of single precision is searched in single precision."""


def fit_cdd(
    W: ArrayLike,
    n_factors: int = 3,
    *,
    block_size: int | Literal["min", "toeplitz"] = "min",
    input_second_moment: ArrayLike | None = None,
    entry_weights: ArrayLike | None = None,
    start: CDDProduct | FitResult | None = None,
    restarts: int | None = None,
    rng: np.random.Generator | int | None = None,
    max_iter: int = 5000,
    tol: float = 1e-7,
    time_limit: float | None = None,
    callback: Callable[[FitProgress], object] | None = None,
    on_interrupt: Literal["raise", "return"] = "raise",
) -> FitResult:
    """Fit a matrix by a product of diagonal and (block-)circulant factors.

    Minimises ``norm(W - P)`` (Frobenius) over the products `P` of `n_factors` alternating diagonal and circulant
    matrices, from several starting points, and keeps the best. The result is never worse than the nearest circulant,
    diagonal or rank-one matrix, if the products include these, and with five factors or more of a single block never
    worse than the nearest matrix of rank two.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex: nested lists or an array of any library that follows the
        array API standard. It is only read; the fit runs in NumPy on the CPU.
    n_factors : int, default 3
        Number of factors, of which the first is a diagonal: any for a square `W` and a single block, otherwise any odd
        number from three on. Then one of the block circulants has the shape of `W`, and further ones are square with
        its smaller side, to the right of it if `W` has at least as many rows as columns, to the left if it has fewer.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulant blocks; the last blocks are cropped where it does not divide the sides of `W`. "min" is
        the smaller side of `W`: a single circulant if `W` is square. "toeplitz" is ``rows + cols - 1``: the corner of
        one circulant of that side is any Toeplitz matrix, so that three factors are a Toeplitz matrix between
        diagonals.
    input_second_moment : array_like, optional
        Second moments `S` of the vectors that `W` is applied to, (cols, cols) and positive semi-definite, or the
        diagonal of `S`, (cols,). Then ``norm((W - P) S^(1/2))`` is minimised, and errors are relative to
        ``norm(W S^(1/2))``.
    entry_weights : array_like, optional
        Weights `M` of the entries of `W`, of its shape, booleans or real numbers that are not negative. Then
        ``sum(M * abs(W - P)**2)`` is minimised, and errors are relative to ``sqrt(sum(M * abs(W)**2))``. Entries of `W`
        where `M` is zero are missing: they are never looked at and may be NaN. Only for three factors, without
        `input_second_moment`; any sides and blocks.
    start : CDDProduct or FitResult, optional
        A product of no more than `n_factors` factors to start from besides the other starting points. The result is
        never worse.
    restarts : int, optional
        Number of random starting points; by default up to 16 for three factors, up to four for more, by size.
    rng : numpy.random.Generator or int, optional
        Source of all random numbers. The same seed gives the same fit on the same machine; under a limit of time the
        same steps, which may end a few earlier or later.
    max_iter : int, default 5000
        Largest number of iterations from one starting point.
    tol : float, default 1e-7
        A run has converged when an iteration lowers the error by no more than `tol` times itself.
    time_limit : float, optional
        Seconds of processor time after which the best fit so far is returned. What counts is the time of this process,
        as ``time.process_time`` has it: that of all of its threads together, those of BLAS and of other work in the
        process too, but not of other processes, nor time spent waiting. So other work on the machine delays a fit, but
        hardly changes it. The products in closed form come first and are completed whatever the limit: the result is
        never worse than these. With more than three factors the search goes on until the limit, in ever longer runs,
        and a longer limit runs the same steps further. By default a fixed amount of work: seconds to minutes, by side
        and `n_factors`.
    callback : callable, optional
        Called with a `FitProgress` after every iteration. It may raise `StopIteration` to end the fit: the best so far
        is returned. Without one, a notebook with `rich` and `ipywidgets` shows the state after two seconds.
    on_interrupt : {"raise", "return"}, default "raise"
        What `KeyboardInterrupt`, by Ctrl-C or from the callback, does. "return" ends the fit as a time limit does, and
        returns the best so far, of which `FitResult.stopped` says "interrupted".

    Returns
    -------
    FitResult
        The operator, with vectors of the library, dtype and device of `W`, and how well it fits.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range, `W` is empty, not two-dimensional or not finite where it has a weight, a
        combination of arguments is not available, or products with the fit overflow the dtype of `W`.

    See Also
    --------
    factorize_cdd : For a product that reproduces `W` to rounding, whatever number of factors that takes.
    error_curve : Fits with more and more factors, compared with other families.

    Notes
    -----
    Three factors are fitted by alternating least squares in closed form, others by Adam with large annealed steps from
    random products, and by L-BFGS from the best of these and from products that are read off the matrix. An iteration
    costs ``O(rows * cols)`` for three factors and ``O(F n^2 log n)`` for F of them, with the memory of a few matrices.
    It takes one thread, except for linear algebra of BLAS.

    Planted products, also with noise as strong as the signal for three factors, are found where other starts end in
    local minima: the outermost factors are read off one after the other.

    References
    ----------
    .. [1] T. F. Chan, An optimal circulant preconditioner for Toeplitz systems, SIAM J. Sci. Stat. Comput. 9, 1988,
       766-771: the nearest circulant, one of the starting points.
    .. [2] M. Huhtanen, A. Perämäki, Factoring matrices into the product of circulant and diagonal matrices, J. Fourier
       Anal. Appl. 21, 2015, 1018-1033: how many factors a matrix needs.
    .. [3] X. Ding, L. Chen, S. Liao, Z. Wang, Parameter-efficient fine-tuning with circulant and diagonal vectors,
       IJCAI 2025, pp. 9185-9193, arXiv:2505.00580: products of three factors as changes of weights.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import fit_cdd
    >>> W = np.diag([1.0, 2.0, 3.0]) @ np.array([[4.0, 6.0, 5.0], [5.0, 4.0, 6.0], [6.0, 5.0, 4.0]])
    >>> result = fit_cdd(W, rng=0)
    >>> result.error < 1e-12
    True
    >>> result.n_parameters
    9
    """
    begun, spent = time.monotonic(), time.process_time()
    matrix = as_matrix(W, _OWNER, "W")
    rows, cols = matrix.shape
    layout = CDDLayout((rows, cols), n_factors, block_size, owner=_OWNER)
    values, weights = _with_entry_weights(to_numpy(matrix), entry_weights, layout, moment=input_second_moment)
    if not np.isfinite(values).all():
        raise ArgumentValueError(_OWNER, "W", "must be finite, got NaN or infinity")
    control = Control(
        max_iter=integer(max_iter, _OWNER, "max_iter"),
        tol=non_negative(tol, _OWNER, "tol"),
        endless=time_limit is not None,
        deadline=None if time_limit is None else spent + non_negative(time_limit, _OWNER, "time_limit"),
        callback=optional_function(callback, _OWNER, "callback"),
    )
    one_of(on_interrupt, _OWNER, "on_interrupt", ("raise", "return"))
    known = _known_start(start, layout, real=not np.iscomplexobj(values))
    restarts = None if restarts is None else integer(restarts, _OWNER, "restarts", least=0)
    inputs = None if input_second_moment is None else _inputs(input_second_moment, values)
    exponent = largest_exponent(values)
    fit = _Fit(scale_by_power_of_two(values, -exponent), layout, control, restarts, on_interrupt == "return")
    if known is not None:
        known = known._replace(vectors=_scaled_evenly(known.vectors, -exponent))
    with notebook_line(control.callback, show_fit) as control.callback:
        found = fit.with_inputs(inputs, random_generator(rng, _OWNER), [known] if known else [], weights)

    operator = layout.product(
        [moved_like(v.astype(values.dtype), matrix) for v in _scaled_evenly(found.vectors, exponent)]
    )
    target = _combined(fit.values, inputs)
    error = product_error(operator, matrix, target, exponent=exponent, inputs=inputs, entry_weights=weights)
    if error == math.inf:
        text = f"has a fit whose products overflow {dtype_name(matrix.dtype)}: use a wider dtype, or divide by a number"
        raise ArgumentValueError(_OWNER, "W", text)
    converged, message = found.converged, "all planned iterations made"
    if not values.any():
        converged, message = True, "the matrix is zero"
    elif found.exact or error <= rounding_error(values.dtype):
        converged, message = True, "the product is the matrix to rounding"
    elif layout.n_factors == 1 and inputs is None:
        converged, message = True, "the nearest matrix of one factor, in closed form"
    elif control.reason != "completed":
        message = f"{control.reason}: the best so far"
    elif converged:
        message = "converged"
    history = [e for e in found.history if math.isfinite(e)]
    return FitResult(
        operator=operator,
        error=error,
        block_size=layout.block_size,
        n_parameters=operator.n_parameters,
        n_iter=max(len(found.history) - 1, 0),
        converged=converged,
        # it never rises, and ends in the error of the operator as it is returned
        history=np.maximum(np.minimum.accumulate([*history[: len(found.history) - 1], error]), error),
        start=found.start,
        stopped=control.reason,
        message=message,
        seconds=time.monotonic() - begun,
    )


class _Found(NamedTuple):
    """The best product of a fit."""

    vectors: Sequence[NDArray[Any]]
    history: Sequence[float]
    converged: bool
    start: str
    exact: bool = False
    """Whether it is the matrix to rounding."""


class _Fit:
    """The fit of one matrix, scaled to a largest entry near one, by products of one layout."""

    def __init__(
        self, values: NDArray[Any], layout: CDDLayout, control: Control, restarts: int | None, returns_best: bool
    ) -> None:
        self.values, self.layout, self.control = values, layout, control
        self.restarts, self.returns_best = restarts, returns_best
        self.dtype = values.dtype
        """The dtype of the products that the fit is made for."""

    def with_inputs(
        self,
        inputs: NDArray[Any] | None,
        rng: np.random.Generator,
        known: list[KnownProduct],
        entry_weights: NDArray[Any] | None,
    ) -> _Found:
        """Fit with weights, as `_inputs` returns them; it starts from the fit without, and so is never worse."""
        if inputs is None:
            return self.plain(rng, known, entry_weights)
        part = copy.copy(self)
        part.control = replace(self.control)
        if self.control.endless:
            part.control.max_iter = min(self.control.max_iter, _OF_A_START)
            part.control.endless = False
        unweighted = part.plain(copy.deepcopy(rng), known, None)
        self.control.reason = part.control.reason
        known = [*known, KnownProduct("unweighted fit", unweighted.vectors)]
        if inputs.ndim == 1 and self.layout.kinds[-1] == "diagonal":
            roots = inputs  # the last diagonal takes them up
            scaled = copy.copy(self)
            scaled.values = self.values * roots.astype(self.values.real.dtype)
            known = [k._replace(vectors=[*k.vectors[:-1], k.vectors[-1] * roots]) for k in known]
            found = scaled.plain(rng, known, None)
            inverse = np.divide(1.0, roots, out=np.zeros_like(roots), where=roots > 0)
            return found._replace(vectors=[*found.vectors[:-1], found.vectors[-1] * inverse])
        return self._searched(rng, known, np.diag(inputs)[:, inputs > 0] if inputs.ndim == 1 else inputs)

    def plain(self, rng: np.random.Generator, known: list[KnownProduct], entry_weights: NDArray[Any] | None) -> _Found:
        """Fit without second moments: in closed form where there is one, else by the search."""
        if self.layout.n_factors == 3:
            return self._alternated(rng, known, entry_weights, self.control.max_iter)
        return self._searched(rng, known, None)

    def _alternated(
        self, rng: np.random.Generator, known: Sequence[KnownProduct], entry_weights: NDArray[Any] | None, max_iter: int
    ) -> _Found:
        """Fit three factors by alternating least squares in closed form."""
        grid = BlockGrid(self.values, self.layout.block_size, entry_weights, self.dtype)
        starts = []
        for name, vectors in known:
            a, c, b = (vector.astype(grid.double) for vector in vectors)  # real ones may start a complex fit
            padded = Factors(_padded(a, grid.p, grid.m), c, _padded(b, grid.q, grid.m))
            starts.append((name, padded.scaled(-grid.exponent)))
        search = ThreeFactorSearch(grid, self.control, max_iter)
        self._to_its_end(lambda: search.run(rng, self.restarts, starts), lambda: bool(search.runs))
        best = search.best
        return _Found(self._of_grid(best.factors, grid), best.history, best.converged, best.start)

    def _of_grid(self, factors: Factors, grid: BlockGrid) -> list[NDArray[Any]]:
        rows, cols = self.layout.shape
        a, c, b = factors.scaled(grid.exponent)
        return [a.reshape(-1)[:rows], c, b.reshape(-1)[:cols]]

    def _to_its_end(self, search: Callable[[], None], found: Callable[[], bool]) -> None:
        """Search until it ends or is stopped; `found` tells whether there is a product to return."""
        try:
            with contextlib.suppress(Stopped):
                search()
        except KeyboardInterrupt:
            if not (self.returns_best and found()):
                raise
            self.control.reason = "interrupted"

    def _searched(self, rng: np.random.Generator, known: list[KnownProduct], inputs: NDArray[Any] | None) -> _Found:
        """Fit any product, with weights where there are `inputs`.

        A wide matrix without inputs is fitted as its transpose: the rows that are carried along the product are then as
        few as its smaller side.
        """
        if not (self.values if inputs is None else self.values @ inputs).any():
            return _Found([np.zeros(shape) for shape in self.layout.vector_shapes], [0.0], True, "zero")
        if inputs is None and self.layout.shape[0] < self.layout.shape[1]:
            tall = copy.copy(self)
            tall.values = np.ascontiguousarray(self.values.T)
            tall.layout = replace(self.layout, shape=self.layout.shape[::-1])
            found = tall._searched(rng, [k._replace(vectors=transposed_vectors(k.vectors)) for k in known], None)
            return found._replace(vectors=transposed_vectors(found.vectors))

        double = np.result_type(self.values.dtype, np.float64)
        dtype = self.values.dtype if self.values.size > _DOUBLE_SIDE**2 else double
        # Of the norm of an isometry.
        scale = float(np.linalg.norm(self.values.astype(double))) / np.sqrt(min(self.values.shape))
        fitted = copy.copy(self)
        fitted.values = (self.values / self.values.real.dtype.type(scale)).astype(dtype)
        low = None if inputs is None else inputs.astype(dtype)
        products = Products(self.layout, fitted.values if low is None else fitted.values @ low, low)
        search = Search(products, self.values.dtype, self.control, rng, self.restarts)

        def run() -> None:
            own = [k._replace(vectors=_scaled_evenly(k.vectors, -np.log2(scale))) for k in known]
            search.run([*own, *fitted._closed_forms(rng, low)])

        self._to_its_end(run, lambda: True)
        best = search.best
        vectors = _scaled_evenly(products.vectors(best.parameters), np.log2(scale))
        return _Found(vectors, best.history, best.converged, best.start, best.exact)

    def _closed_forms(self, rng: np.random.Generator, inputs: NDArray[Any] | None) -> Sequence[KnownProduct]:
        """Return products of up to three factors that the answer must not be worse than."""
        layout, found = self.layout, []
        if layout.is_single_block:
            found.append(KnownProduct("diagonal", [np.diag(self.values)]))
            circulant = Circulant.nearest(self.values).c
            found.append(KnownProduct("circulant", [np.ones_like(circulant), circulant[None, None]]))
        if layout.n_factors < 3:
            return found
        if inputs is None and layout.n_factors > 3:
            most = self.control.max_iter
            best = self._alternated(rng, (), None, min(most, _OF_A_START) if self.control.endless else most)
            found.append(KnownProduct(best.start, best.vectors))
        else:
            grid = BlockGrid(self.values, layout.block_size)
            for name, start in CLOSED_FORMS.items():
                found.append(KnownProduct(name, self._of_grid(start(grid, rng), grid)))
            if layout.is_single_block and inputs is not None:
                u, v = truncated_svd(self.values @ inputs, 1, rng, inputs)
                ones = np.ones((1, 1, layout.block_size), dtype=u.dtype)
                found.append(KnownProduct("rank-one", [u[:, 0], ones, v[:, 0]]))
        return found


# The arguments


def _with_entry_weights(
    values: NDArray[Any], entry_weights: Any, layout: CDDLayout, *, moment: object
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return a matrix with zeros for the entries of no weight, and the weights of all."""
    if entry_weights is None:
        return values, None
    argument = "entry_weights"
    if moment is not None:
        raise ArgumentValueError(_OWNER, argument, "must be None with input_second_moment")
    if layout.n_factors != 3:
        raise ArgumentValueError(
            _OWNER, argument, f"must be None except for three factors, got n_factors={layout.n_factors}"
        )
    weights = to_numpy(as_floating(entry_weights, _OWNER, argument))
    if weights.shape != values.shape:
        raise ArgumentValueError(_OWNER, argument, f"must have the shape of W, {values.shape}, got {weights.shape}")
    if np.iscomplexobj(weights):
        raise ArgumentValueError(_OWNER, argument, "must be bool or real, got complex numbers")
    if not (np.isfinite(weights).all() and weights.min() >= 0.0):
        raise ArgumentValueError(_OWNER, argument, "must be finite and not negative")
    if not weights.any():
        raise ArgumentValueError(_OWNER, argument, "must not be all zero")
    return np.where(weights > 0.0, values, values.dtype.type(0)), weights / weights.max()


def _inputs(moment: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Return what the columns of products are combined with: roots of a diagonal, or the columns of a root of all."""
    checked = second_moment(moment, values.shape[1], _OWNER)
    if checked.ndim == 1:
        return column_roots(checked, _OWNER)
    return weighted_inputs(checked, _OWNER, real=not np.iscomplexobj(values))


def _combined(values: NDArray[Any], inputs: NDArray[Any] | None) -> NDArray[Any]:
    """Return a matrix times the inputs, of which a vector stands for the matrix with this diagonal."""
    if inputs is None:
        return values
    combined: NDArray[Any] = values * inputs if inputs.ndim == 1 else values @ inputs
    return combined


def _known_start(start: Any, layout: CDDLayout, *, real: bool) -> KnownProduct | None:
    """Return the product of the argument `start`, in double precision; `real` tells whether the matrix is real."""
    if start is None:
        return None

    def refused(text: str) -> ArgumentValueError:
        return ArgumentValueError(_OWNER, "start", text)

    product = start.operator if isinstance(start, FitResult) else start
    if not isinstance(product, CDDProduct):
        raise ArgumentTypeError(_OWNER, "start", f"must be a CDDProduct or a FitResult, got {start!r}")
    if layout.is_single_block and not isinstance(product.factors[0], Diagonal):
        ones = product._own_namespace().ones(product.shape[0], dtype=product.dtype, device=product.device)
        product = CDDProduct((Diagonal(ones), *product.factors))
    own = _layout_of_start(product, layout.shape)
    if own.block_size != layout.block_size and own.n_factors > 1:
        raise refused(f"must have blocks of {layout.block_size}, got blocks of {own.block_size}")
    fewest = 1 if layout.is_single_block else 3
    if not fewest <= own.n_factors <= layout.n_factors:
        text = f"must become a product of {layout.n_factors} factors, the first a diagonal, with identities added"
        raise refused(f"{text}, got {own.n_factors} factors")
    vectors = [to_numpy(vector) for vector in own.vectors_of(product)]
    entries = np.concatenate([vector.reshape(-1) for vector in vectors])
    if real and np.iscomplexobj(entries):
        raise refused("must be real where W is, got complex factors")
    if not np.isfinite(entries).all():
        raise refused("must be finite, got NaN or infinity")
    wide = [v.astype(np.result_type(v.dtype, np.float64)) for v in vectors]
    whole: Any = layout._balanced(layout._extended(wide))
    return KnownProduct("warm start", whole)


def _layout_of_start(product: CDDProduct, shape: tuple[int, int]) -> CDDLayout:
    """Return the layout of a product of that shape to start from."""
    if product.shape != shape:
        raise ArgumentValueError(_OWNER, "start", f"must have shape {shape}, got {tuple(product.shape)}")
    if product.batch_shape:
        raise ArgumentValueError(_OWNER, "start", f"must be one product, got a stack of shape {product.batch_shape}")
    try:
        return CDDLayout.of(product)
    except ArgumentError as error:
        text = f"must have the factors that such a fit has: its product {error.text}"
        raise ArgumentValueError(_OWNER, "start", text) from error


# Vectors


def _scaled_evenly(vectors: Sequence[NDArray[Any]], log2_scale: float) -> list[NDArray[Any]]:
    """Multiply a product by two to the power `log2_scale`, every factor by its share."""
    exponent, rest = divmod(log2_scale / len(vectors), 1.0)
    with np.errstate(over="ignore"):  # the error of the products tells
        return [scale_by_power_of_two(v * v.real.dtype.type(2.0**rest), int(exponent)) for v in vectors]


def _padded(diagonal: NDArray[Any], blocks: int, size: int) -> NDArray[Any]:
    whole = np.zeros(blocks * size, dtype=diagonal.dtype)
    whole[: len(diagonal)] = diagonal
    return whole.reshape(blocks, size)
