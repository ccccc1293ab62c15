"""Rows on a grid of circulant blocks, by their spectra: the products per frequency, and their sums over rows.

A single block, which most products have, is a product of two arrays and no contraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from structmat._array_tools import contiguous, padded

if TYPE_CHECKING:
    from structmat._array_tools import Namespace
    from structmat.fit._many_factors.array_work import Work, WorkArray

__all__ = ["combined", "correlated", "spectra_of_rows", "sums_of_products"]

# Grids of no more blocks are gone through block by block, larger ones by a matrix product per frequency.
_FEW_BLOCKS = 16


def spectra_of_rows(rows: WorkArray, m: int, work: Work) -> WorkArray:
    """Return spectra (B, r, q, f) of the blocks of rows (B, r, n), the last one padded with zeros."""
    *lead, n = rows.shape
    blocks = -(-n // m)
    whole: WorkArray = padded(rows, blocks * m, work.xp)
    return work.transformed(whole.reshape(*lead, blocks, m))


def combined(spectra: WorkArray, blocks: WorkArray, xp: Namespace, *, overwrite: bool = False) -> WorkArray:
    """Return ``sum_q blocks[b, p, q, f] * spectra[b, r, q, f]``, of shape (B, r, p, f); may overwrite the spectra."""
    _, p, q, _ = blocks.shape
    if p * q > _FEW_BLOCKS:
        left: WorkArray = contiguous(xp.permute_dims(spectra, (0, 3, 1, 2)), xp)
        product = left @ contiguous(xp.permute_dims(blocks, (0, 3, 2, 1)), xp)
        return contiguous(xp.permute_dims(product, (0, 2, 3, 1)), xp)
    if q == 1:
        outer = blocks[:, None, :, 0]
        if overwrite and p == 1:
            spectra *= outer
            return spectra
        return spectra * outer
    out = spectra[:, :, :1] * blocks[:, None, :, 0]
    for j in range(1, q):
        out += spectra[:, :, j : j + 1] * blocks[:, None, :, j]
    return out


def correlated(spectra: WorkArray, conj: WorkArray, xp: Namespace) -> WorkArray:
    """Return ``sum_r spectra[b, r, p, f] * conj[b, r, q, f]``, of shape (B, p, q, f); may overwrite `conj`."""
    p, q = spectra.shape[2], conj.shape[2]
    if p * q > _FEW_BLOCKS:
        left: WorkArray = contiguous(xp.permute_dims(spectra, (0, 3, 2, 1)), xp)
        return xp.permute_dims(left @ contiguous(xp.permute_dims(conj, (0, 3, 1, 2)), xp), (0, 2, 3, 1))
    if p == 1:
        return sums_of_products(conj, spectra)[:, None]
    return xp.stack([(spectra[:, :, i : i + 1] * conj).sum(axis=1) for i in range(p)], axis=1)


def sums_of_products(x: WorkArray, y: WorkArray) -> WorkArray:
    """Return ``sum_r x[b, r, ...] * y[b, r, ...]``; overwrites `x`."""
    # for complex numbers several times as fast as a contraction, in both libraries
    x *= y
    return x.sum(axis=1)
