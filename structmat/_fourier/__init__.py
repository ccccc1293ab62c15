"""Fourier transforms by the engine and method that measured fastest, and plans of products by them."""
