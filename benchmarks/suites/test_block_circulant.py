"""Block circulants in every library, beside the dense product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm

SHAPES = ((768, 768, 256), (1024, 1024, 16), (1000, 3000, 128), (2048, 5504, 256))  # rows, columns, block


@pytest.mark.parametrize(("rows", "cols", "b"), SHAPES)
@pytest.mark.parametrize("batch", [1, 64])
class TestProduct:
    def case(self, rows: int, cols: int, b: int, batch: int, dtype: str) -> tuple[Any, np.ndarray, np.ndarray, str]:
        rng = np.random.default_rng(0)
        op = sm.BlockCirculant(rng.standard_normal((-(-rows // b), -(-cols // b), b)).astype(dtype), (rows, cols))
        x = rng.standard_normal((batch, cols)).astype(dtype)
        return op, x, op.to_dense(), f"{rows} x {cols}, b = {b}, {batch} vectors, {dtype}"

    def test_dense(self, check: Any, rows: int, cols: int, b: int, batch: int, dtype: str) -> None:
        _, x, W, group = self.case(rows, cols, b, batch, dtype)
        check(group, x @ W.T, lambda: x @ W.T)

    def test_prepared(self, check: Any, library: Any, rows: int, cols: int, b: int, batch: int, dtype: str) -> None:
        op, x, W, group = self.case(rows, cols, b, batch, dtype)
        prepared = sm.BlockCirculant(library.asarray(op.c), (rows, cols)).prepare()
        check(group, x @ W.T, library.ready(prepared.matvec), library.asarray(x))
