"""Batches that are computed some vectors at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from structmat._fourier import in_chunks


@pytest.mark.parametrize("size", [None, 1, 400, 10**6])
@pytest.mark.parametrize("rows", [0, 1, 1100])
def test_chunks_of_any_size_are_the_whole(rows: int, size: int | None) -> None:
    seen = []

    def doubled_but_the_last(x: Any, out: Any) -> Any:
        seen.append(len(x))
        return np.multiply(x[:, :-1], 2, out=out)

    x = np.arange(rows * 128.0).reshape(rows, 1, 128)
    wanted = 2 * x[..., :-1]
    for out in (None, np.empty_like(wanted)):
        seen.clear()
        found = in_chunks(doubled_but_the_last, x, 127, size, out)
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted)
        if out is not None and rows:
            assert np.shares_memory(found, out)
        assert sum(seen) == rows
        assert max(seen, default=0) <= (size or rows)
