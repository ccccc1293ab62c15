"""Fourier transforms, and plans that compute products by them."""
