"""Operators that are made of others: sums, products, multiples, submatrices and what is prepared for many products.

Each file imports only from those below it:

- `kronecker_sum`: `KroneckerSum`
- `sum`: `Sum`
- `kronecker`: `Kronecker`
- `product`: `Product`, and powers
- `eigendecomposition`: `Eigendecomposition`, and sums and products of one eigenbasis
- `submatrix`: `Submatrix`
- `scaled`: `Scaled`
- `prepared`: `Prepared`
- `chain`: what follows for a product from its factors
"""
