"""Matrices of structured blocks: grids of circulants, and blocks that depend on their offset alone.

Each file imports only from those below it:

- `block_toeplitz`: `BlockToeplitz`
- `block_circulant`: `BlockCirculant`
"""
