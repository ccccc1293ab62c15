"""No product takes more transforms than it needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

import structmat as sm

rng = np.random.default_rng(11)


@pytest.mark.parametrize("real", [True, False])
def test_the_number_of_transforms(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block circulant transforms q + p blocks of data, whatever p * q; a spectral circulant two vectors."""
    counts: list[tuple[str, int]] = []
    for name in ("fft", "ifft", "rfft", "irfft"):
        original = getattr(scipy.fft, name)

        def counted(x: Any, *args: Any, original: Any = original, name: str = name, **kwargs: Any) -> Any:
            axis = args[1] if len(args) > 1 else -1
            counts.append((name, x.size // x.shape[axis]))
            return original(x, *args, **kwargs)

        monkeypatch.setattr(scipy.fft, name, counted)
    monkeypatch.setattr("structmat._fourier.ducc", lambda: None)
    unit = 1.0 if real else 1j
    forward, backward = ("rfft", "irfft") if real else ("fft", "ifft")
    p, q, b = 3, 5, 4
    B = sm.BlockCirculant(unit * rng.standard_normal((p, q, b)))
    B.matvec(rng.standard_normal(q * b))
    assert sorted(counts) == sorted([(forward, p * q), (forward, q), (backward, p)])  # those of c, then q + p
    S = sm.Circulant(unit * rng.standard_normal(8)).to_spectral()
    counts.clear()
    S.matvec(rng.standard_normal(8))
    assert sorted(counts) == sorted([(forward, 1), (backward, 1)])
    counts.clear()
    sm.Circulant(unit * rng.standard_normal(8)).matvec(rng.standard_normal(8))
    assert sum(n for _, n in counts) == 3
    for kind in (sm.Toeplitz, sm.Hankel):
        op = kind(unit * rng.standard_normal(8), rng.standard_normal(6))
        for product, size in ((op.matvec, 6), (op.rmatvec, 8)):
            counts.clear()
            product(rng.standard_normal(size))
            assert sorted(counts) == sorted([(forward, 1), (forward, 1), (backward, 1)])
