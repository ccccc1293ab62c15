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
        return self.right(self.left(W).conj().T).conj().T

    def left(self, U: NDArray[Any]) -> NDArray[np.complex128]:
        """Return ``C1^H D1^H U``."""
        d, s = self.phases[:2]
        return np.fft.ifft(s.conj()[:, None] * np.fft.fft(d.conj()[:, None] * U, axis=0), axis=0)

    def right(self, V: NDArray[Any]) -> NDArray[np.complex128]:
        """Return ``C2 D2 V``."""
        d, s = self.phases[2:]
        return np.fft.ifft(s[:, None] * np.fft.fft(d[:, None] * V, axis=0), axis=0)

    def around(self, vectors: list[NDArray[np.complex128]] | None) -> list[NDArray[np.complex128]] | None:
        """Return the factors of `W`, four more than those of `M`, if there are any."""
        if vectors is None:
            return None
        d1, s1, d2, s2 = self.phases
        return [d1, np.fft.ifft(s1), *vectors, np.fft.ifft(s2), d2]
