"""Systems of Toeplitz and block Toeplitz matrices, by each algorithm."""
