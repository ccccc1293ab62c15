"""What first-order solvers ask of NumPy and torch beyond the array API standard: transforms, strides, memory.

A tensor of torch stays on its device. Nothing here reads a tensor's values, which would wait for the device, but for
`to_numpy` of `structmat._arguments`, which callers name where they mean it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import scipy  # its `fft` is imported on first use
from array_api_compat import numpy as numpy_namespace
from numpy.lib.stride_tricks import as_strided

from structmat._array_tools import device_of, is_eager_on_cpu, is_torch, namespace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import Array, Namespace

__all__ = ["NumpyWork", "TorchWork", "Work", "WorkArray", "has_double", "work_like"]

WorkArray: TypeAlias = Any
"""An array of NumPy or a tensor of torch."""

# Rows that are carried along the product together, with all that the backward pass needs of them, take this much
# memory: few enough calls, and still in the cache of a core.
_CHUNK_BYTES = 1 << 21
# torch's calls cost more, and it shares the work within a chunk between its threads: so much for each.
_TORCH_CHUNK_BYTES = 1 << 22
# A tensor on the CPU of fewer entries is read by NumPy, whose calls cost less; with more, MKL's transforms decide.
_TORCH_ENTRIES = 256**2
# Just below the largest block that glibc learns from.
_LARGE_BLOCK = 31 << 20
# A device other than the CPU has a queue to fill: few calls count, and its memory is the limit.
_DEVICE_CHUNK_BYTES = 1 << 30
# Errors of so many steps are read from it at once, since it stands idle while it is waited for.
_DEVICE_STEPS = 16


class Work(Protocol):
    """What both libraries do."""

    xp: Namespace
    steps_at_once: int
    """Steps that errors are read after."""

    @property
    def chunk_bytes(self) -> int:
        """Memory of the rows that are carried along together."""

    def moved(self, values: NDArray[Any]) -> WorkArray:
        """Return values where the work is done, in single precision where there is no other."""

    def transformed(self, blocks: WorkArray) -> WorkArray:
        """Return the spectra of blocks, half of them where these are real."""

    def from_spectra(self, spectra: WorkArray, m: int, *, real: bool) -> WorkArray:
        """Return the blocks with these spectra, which may be overwritten."""

    def shifted(self, twice: WorkArray, rows: slice) -> WorkArray:
        """Return rows (B, r, n), where row `i` is a vector shifted by `i`; the vectors come twice, (B, 2n)."""

    def shifted_back(self, twice: WorkArray, start: int) -> WorkArray:
        """Return rows (B, r, n) shifted back by `start`, `start` + 1, ...; they come twice, (B, r, 2n)."""

    def conjugated(self, x: WorkArray) -> WorkArray:
        """Return the conjugate, which takes the place of `x`."""

    def real_view(self, x: WorkArray) -> WorkArray:
        """Return a view of real and imaginary parts as numbers of their own."""

    def norms2(self, rows: WorkArray) -> WorkArray:
        """Return squared norms along the last axis, in double precision if there is any."""


class NumpyWork:
    """NumPy on the CPU, on one thread."""

    xp = numpy_namespace
    steps_at_once = 1

    @property
    def chunk_bytes(self) -> int:
        return _CHUNK_BYTES

    def moved(self, values: NDArray[Any]) -> NDArray[Any]:
        return values

    def transformed(self, blocks: NDArray[Any]) -> NDArray[Any]:
        spectra: NDArray[Any] = scipy.fft.fft(blocks) if np.iscomplexobj(blocks) else scipy.fft.rfft(blocks)
        return spectra

    def from_spectra(self, spectra: NDArray[Any], m: int, *, real: bool) -> NDArray[Any]:
        blocks: NDArray[Any] = (
            scipy.fft.irfft(spectra, n=m, overwrite_x=True) if real else scipy.fft.ifft(spectra, overwrite_x=True)
        )
        return blocks

    def shifted(self, twice: NDArray[Any], rows: slice) -> NDArray[Any]:
        (count, n2), (apart, step) = twice.shape, twice.strides
        n = n2 // 2
        shape = (count, rows.stop - rows.start, n)
        return as_strided(twice[:, n - rows.start :], shape, (apart, -step, step), writeable=False)

    def shifted_back(self, twice: NDArray[Any], start: int) -> NDArray[Any]:
        (count, height, n2), (apart, down, step) = twice.shape, twice.strides
        return as_strided(twice[:, :, start:], (count, height, n2 // 2), (apart, down + step, step), writeable=False)

    def conjugated(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.conj(x, out=x) if np.iscomplexobj(x) else x

    def real_view(self, x: NDArray[Any]) -> NDArray[Any]:
        return x.view(x.real.dtype)

    def norms2(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.vecdot(rows, rows).real.astype(np.float64)
        return sums


class TorchWork:
    """torch on the device of a tensor; its own threads share the work within a chunk.

    Parameters
    ----------
    like : tensor
    """

    def __init__(self, like: Array) -> None:
        self.xp = namespace(like)
        self._device, self._double = device_of(like), has_double(like)
        self.on_cpu = is_eager_on_cpu(like, self.xp)
        self.steps_at_once = 1 if self.on_cpu else _DEVICE_STEPS

    @property
    def chunk_bytes(self) -> int:
        return _TORCH_CHUNK_BYTES * self.xp.get_num_threads() if self.on_cpu else _DEVICE_CHUNK_BYTES

    def moved(self, values: NDArray[Any]) -> WorkArray:
        if not self._double:
            values = values.astype(np.complex64 if np.iscomplexobj(values) else np.float32)
        return self.xp.asarray(values, device=self._device)

    def transformed(self, blocks: WorkArray) -> WorkArray:
        return self.xp.fft.fft(blocks) if blocks.is_complex() else self.xp.fft.rfft(blocks)

    def from_spectra(self, spectra: WorkArray, m: int, *, real: bool) -> WorkArray:
        return self.xp.fft.irfft(spectra, n=m) if real else self.xp.fft.ifft(spectra)

    def shifted(self, twice: WorkArray, rows: slice) -> WorkArray:
        count, n2 = twice.shape
        n, height = n2 // 2, rows.stop - rows.start
        # There are no negative strides, but each row of a vector repeated begins where it has moved on by one.
        repeated = twice[:, n - rows.start : n2 - rows.start].repeat(1, height)
        return repeated.as_strided((count, height, n), (height * n, n - 1, 1))

    def shifted_back(self, twice: WorkArray, start: int) -> WorkArray:
        count, height, n2 = twice.shape
        return twice.as_strided((count, height, n2 // 2), (height * n2, n2 + 1, 1), start)

    def conjugated(self, x: WorkArray) -> WorkArray:
        return x.conj_physical_()

    def real_view(self, x: WorkArray) -> WorkArray:
        return self.xp.view_as_real(x) if x.is_complex() else x

    def norms2(self, rows: WorkArray) -> WorkArray:
        parts = self.real_view(rows.contiguous()).reshape(*rows.shape[:-1], -1)
        norms = self.xp.linalg.vector_norm(parts, axis=-1)
        return (norms.double() if self._double else norms).square()


def has_double(like: Array | None) -> bool:
    """Tell whether work like that on an array may be done in double precision, which Apple's GPUs have not."""
    return not is_torch(like) or str(device_of(like)).partition(":")[0] != "mps"  # type: ignore[arg-type]


def work_like(like: Array | None, entries: int) -> Work:
    """Return what works on so many entries where an array is: torch for a tensor if it is faster, else NumPy."""
    # Once such a block was freed, glibc keeps what is freed after it, instead of getting it anew, and clearing it, for
    # every chunk: up to twice as fast. No page of it is touched.
    np.empty(_LARGE_BLOCK, dtype=np.uint8)
    if not is_torch(like):
        return NumpyWork()
    work = TorchWork(like)  # type: ignore[arg-type]
    return NumpyWork() if work.on_cpu and _is_slower(work.xp, entries) else work


def _is_slower(torch: Namespace, entries: int) -> bool:
    """Tell whether torch is slower than NumPy on the CPU."""
    return entries < _TORCH_ENTRIES or not torch.backends.mkl.is_available()
