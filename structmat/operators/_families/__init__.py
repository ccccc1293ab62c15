"""Matrices that are given by few parameters, one family in one file, and the eigenvalues that some of them share.

Each file imports only from those below it:

- `grid_convolution`: `GridConvolution`
- `spectral_multiplier`: `SpectralMultiplier`, `laplacian`
- `multilevel`: `MultilevelCirculant`, `MultilevelToeplitz`
- `circulants`: `Circulant`, `SpectralCirculant`, `BandedCirculant`
- `given_spectrum`: what matrices share whose parameters are their eigenvalues
- `any_circulant`: what circulants of one level and of several share
- `diagonal_by_transforms`: the linear algebra of matrices that transforms make diagonal
- `diagonal`: `Diagonal` and `Identity`
- `transforms`: `Fourier`, `CosineTransform`, `SineTransform`
- `toeplitz`: `Toeplitz`, `Hankel`, `ToeplitzInverse`
- `spectral`: matrices given by eigenvalues in a known orthonormal basis
- `grid_spectrum`: the eigenvalues of matrices that transforms make diagonal
- `dense`: `Dense`, a small part without structure
"""
