"""A check of a large operator takes few products, and no memory beyond some vectors."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np

import structmat as sm
from structmat.testing import check_operator

N = 1 << 13


class Counted(sm.Circulant):
    """A circulant that counts the vectors that it multiplies."""

    vectors = 0

    def _matvec(self, x: Any, xp: Any) -> Any:
        Counted.vectors += int(np.prod(x.shape[:-1]))
        return super()._matvec(x, xp)


def test_it_takes_at_most_150_products() -> None:
    C = Counted(np.random.default_rng(0).standard_normal(N))
    Counted.vectors = 0
    check_operator(C, rng=0)
    assert 20 < Counted.vectors <= 150


def test_it_takes_at_most_40_vectors_of_memory() -> None:
    C = sm.Circulant(np.random.default_rng(0).standard_normal(N))
    check_operator(C, rng=1)  # what is kept of the first call, such as plans of transforms, is not counted
    tracemalloc.start()
    try:
        check_operator(C, rng=0)
        assert tracemalloc.get_traced_memory()[1] <= 40 * 8 * N
    finally:
        tracemalloc.stop()
