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
    real: bool
    """Whether all of them are real matrices, signs and orthogonal circulants."""

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator, *, real: bool = False) -> Mixing:
        """Return random phases for matrices of side `n`."""
        phases = np.exp(2j * np.pi * rng.random((4, n)))
        if real:
            phases[::2] = rng.choice([-1.0, 1.0], (2, n))
            spectra = np.fft.fft(rng.standard_normal((2, n)))
            phases[1::2] = spectra / np.abs(spectra)
        return cls(phases, real)

    def mixed(self, W: NDArray[Any]) -> NDArray[Any]:
        """Return `M` for a matrix `W`."""
        return self.right(self.left(W).conj().T).conj().T

    def left(self, U: NDArray[Any]) -> NDArray[Any]:
        """Return ``C1^H D1^H U``."""
        d, s = self.phases[:2].conj()
        return self._of_field(np.fft.ifft(s[:, None] * np.fft.fft(d[:, None] * U, axis=0), axis=0))

    def right(self, V: NDArray[Any]) -> NDArray[Any]:
        """Return ``C2 D2 V``."""
        d, s = self.phases[2:]
        return self._of_field(np.fft.ifft(s[:, None] * np.fft.fft(d[:, None] * V, axis=0), axis=0))

    def around(self, vectors: list[NDArray[Any]] | None) -> list[NDArray[Any]] | None:
        """Return the factors of `W`, four more than those of `M`, if there are any."""
        if vectors is None:
            return None
        d1, s1, d2, s2 = self.phases
        first, second, last, last_but_one = map(self._of_field, (d1, np.fft.ifft(s1), d2, np.fft.ifft(s2)))
        return [first, second, *vectors, last_but_one, last]

    def _of_field(self, x: NDArray[Any]) -> NDArray[Any]:
        return x.real if self.real else x
