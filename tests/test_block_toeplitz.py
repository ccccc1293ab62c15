"""Block Toeplitz matrices: how they are made, their blocks, and their systems by each algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.operator_registry import block_circulant_matrix, block_toeplitz_matrix

# How they are made


def test_offsets_go_from_the_upper_right_corner_to_the_lower_left_one() -> None:
    blocks = np.random.default_rng(0).standard_normal((3, 5, 2, 4))
    for rows in (1, 3, 5):
        c, r = blocks[:, 5 - rows :], blocks[:, 5 - rows :: -1]
        T = sm.BlockToeplitz.from_offsets(blocks, rows)
        assert T.grid == (rows, 6 - rows)
        assert T.block_shape == (2, 4)
        np.testing.assert_array_equal(T.to_dense(), block_toeplitz_matrix(c, r))
    np.testing.assert_array_equal(sm.BlockToeplitz.from_offsets(blocks).c, blocks[:, 2:])


def test_without_a_row_the_matrix_is_hermitian() -> None:
    rng = np.random.default_rng(0)
    c = rng.standard_normal((4, 2, 2)) + 1j * rng.standard_normal((4, 2, 2))
    c[0] += c[0].conj().T
    dense = sm.BlockToeplitz(c).to_dense()
    np.testing.assert_array_equal(dense, dense.conj().T)


def test_a_grid_of_circulants_in_the_order_of_block_rows() -> None:
    p, q, b = 2, 3, 4
    B = sm.BlockCirculant(np.random.default_rng(0).standard_normal((p, q, b)))
    by_grids = block_circulant_matrix(B.c, B.shape).reshape(p, b, q, b)
    expected = by_grids.transpose(1, 0, 3, 2).reshape(b * p, b * q)
    np.testing.assert_array_equal(sm.BlockToeplitz.from_block_circulant(B).to_dense(), expected)


def test_equal_blocks_on_the_diagonal_multiply_from_both_sides() -> None:
    rng = np.random.default_rng(0)
    T = sm.BlockToeplitz(rng.standard_normal((2, 3, 2, 4)), rng.standard_normal((5, 2, 4)))
    left, right = rng.standard_normal((3, 2)), rng.standard_normal((2, 4, 1)) + 1j
    L, R = sm.BlockToeplitz.block_diagonal(left, 3), sm.BlockToeplitz.block_diagonal(right, 5)
    np.testing.assert_array_equal(L.to_dense(), np.kron(np.eye(3), left))
    product = T.multiply_blocks(left, right)
    assert product.block_shape == (3, 1)
    np.testing.assert_allclose(product.to_dense(), L.to_dense() @ T.to_dense() @ R.to_dense(), atol=1e-13)


def test_whole_blocks_are_block_toeplitz_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    T = sm.BlockToeplitz(rng.standard_normal((4, 2, 3)), rng.standard_normal((5, 2, 3)))
    part = T[2:8, 3:12]
    assert type(part) is sm.BlockToeplitz
    assert part.grid == (3, 3)
    np.testing.assert_array_equal(part.to_dense(), T.to_dense()[2:8, 3:12])
    assert type(T[1:8, 3:12]) is sm.Submatrix


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: sm.BlockToeplitz(np.ones((2, 3))), r"BlockToeplitz: c must have shape \(..., m, p, q\)"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 4))), r"r must be given where blocks are not square: .* 3 x 4"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 4)), np.ones((2, 4, 3))), r"r must have shape \(..., n, 3, 4\)"),
        (lambda: sm.BlockToeplitz(np.ones((2, 2, 3, 3)), np.ones((3, 2, 3, 3))), "do not broadcast"),
        (lambda: sm.BlockToeplitz.from_offsets(np.ones((4, 2, 2))), "odd number"),
        (lambda: sm.BlockToeplitz.from_offsets(np.ones((4, 2, 2)), 5), "number of offsets, 4, got 5"),
        (lambda: sm.BlockToeplitz.block_diagonal(np.ones(2), 2), "block must have shape"),
        (lambda: sm.BlockToeplitz.from_block_circulant(sm.BlockCirculant(np.ones((1, 1, 3)), (2, 3))), "cropped"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 3))).multiply_blocks(np.ones((3, 2))), r"left must have shape"),
        (lambda: sm.BlockToeplitz(np.ones((2, 3, 3))).multiply_blocks(None, np.ones((2, 3))), r"right must have shape"),
    ],
)
def test_errors_name_the_argument(make: Any, match: str) -> None:
    with pytest.raises(sm.ArgumentValueError, match=match):
        make()
