"""Rows on a grid of circulant blocks, by their spectra: the transforms, and the products per frequency.

A single block, which most products have, is a product of two arrays and no contraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `fft` is imported on first use

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["combined", "correlated", "from_spectra", "spectra_of_rows", "transformed"]

# Grids of no more blocks are gone through block by block, larger ones by a matrix product per frequency.
_FEW_BLOCKS = 16


def spectra_of_rows(rows: NDArray[Any], m: int) -> NDArray[Any]:
    """Return spectra (B, r, q, f) of the blocks of rows (B, r, n), the last one padded with zeros."""
    *lead, n = rows.shape
    blocks = -(-n // m)
    if blocks * m != n:
        padded = np.zeros((*lead, blocks * m), dtype=rows.dtype)
        padded[..., :n] = rows
        rows = padded
    return transformed(rows.reshape(*lead, blocks, m))


def transformed(blocks: NDArray[Any]) -> NDArray[Any]:
    """Return the spectra of blocks, half of them where these are real."""
    spectra: NDArray[Any] = scipy.fft.fft(blocks) if np.iscomplexobj(blocks) else scipy.fft.rfft(blocks)
    return spectra


def from_spectra(spectra: NDArray[Any], m: int, *, real: bool) -> NDArray[Any]:
    """Return the blocks with these spectra, which are overwritten."""
    blocks: NDArray[Any] = (
        scipy.fft.irfft(spectra, n=m, overwrite_x=True) if real else scipy.fft.ifft(spectra, overwrite_x=True)
    )
    return blocks


def combined(spectra: NDArray[Any], blocks: NDArray[Any], *, overwrite: bool = False) -> NDArray[Any]:
    """Return ``sum_q blocks[b, p, q, f] * spectra[b, r, q, f]``, of shape (B, r, p, f); may overwrite the spectra."""
    _, p, q, _ = blocks.shape
    if p * q > _FEW_BLOCKS:
        left = np.ascontiguousarray(spectra.transpose(0, 3, 1, 2))
        product = left @ np.ascontiguousarray(blocks.transpose(0, 3, 2, 1))
        return np.ascontiguousarray(product.transpose(0, 2, 3, 1))
    if q == 1:
        outer: NDArray[Any] = np.multiply(spectra, blocks[:, None, :, 0], out=spectra if overwrite and p == 1 else None)
        return outer
    out = spectra[:, :, :1] * blocks[:, None, :, 0]
    for j in range(1, q):
        out += spectra[:, :, j : j + 1] * blocks[:, None, :, j]
    return out


def correlated(spectra: NDArray[Any], conj: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_r spectra[b, r, p, f] * conj[b, r, q, f]``, of shape (B, p, q, f)."""
    p, q = spectra.shape[2], conj.shape[2]
    if p * q > _FEW_BLOCKS:
        left = np.ascontiguousarray(spectra.transpose(0, 3, 2, 1))
        return (left @ np.ascontiguousarray(conj.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)
    sums = [[np.einsum("brf,brf->bf", spectra[:, :, i], conj[:, :, j]) for j in range(q)] for i in range(p)]
    return np.stack([np.stack(row, axis=1) for row in sums], axis=1)
