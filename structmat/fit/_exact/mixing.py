"""Random unitary diagonals and circulants on both sides, which leave no structure in a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mixing"]


class Mixing(NamedTuple):
    """``W = D1 C1 M C2 D2``: diagonals `D` and circulants `C` of random phases, and `M` that looks like any matrix."""

    phases: NDArray[np.complex128]
    """(4, n): the diagonal and the spectrum of the circulant on the left, then of those on the right."""

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator) -> Mixing:
        """Return random phases for matrices of side `n`."""
        return cls(np.exp(2j * np.pi * rng.random((4, n))))

    def mixed(self, W: NDArray[Any]) -> NDArray[np.complex128]:
        """Return `M` for a matrix `W`."""
        d1, s1, d2, s2 = self.phases.conj()
        left = np.fft.ifft(s1[:, None] * np.fft.fft(d1[:, None] * W, axis=0), axis=0)
        return np.fft.fft(s2 * np.fft.ifft(left * d2, axis=1), axis=1)

    def around(self, vectors: list[NDArray[np.complex128]]) -> list[NDArray[np.complex128]]:
        """Return the factors of `W`, for those of `M`: four more."""
        d1, s1, d2, s2 = self.phases
        return [d1, np.fft.ifft(s1), *vectors, np.fft.ifft(s2), d2]
