"""Products of grids of circulant blocks per frequency, for grids of few blocks and of many."""

from __future__ import annotations

import numpy as np
import pytest
from array_api_compat import numpy as xp

from structmat.fit._many_factors.spectra import combined, correlated


@pytest.mark.parametrize(("p", "q"), [(1, 1), (3, 1), (2, 3), (5, 7)])
def test_products_of_grids_are_sums_over_blocks(p: int, q: int) -> None:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal((2, *shape, 4)) @ np.diag([1, 1j, 1 + 1j, -1])

    spectra, blocks, other = drawn(6, q), drawn(p, q), drawn(6, p)
    expected = np.einsum("bpqf,brqf->brpf", blocks, spectra)
    for overwrite in (False, True):
        np.testing.assert_allclose(combined(spectra.copy(), blocks, xp, overwrite=overwrite), expected, atol=1e-13)
    expected = np.einsum("brpf,brqf->bpqf", other, spectra)
    np.testing.assert_allclose(correlated(other, spectra, xp), expected, atol=1e-13)
