"""Products that reproduce a square matrix.

A closed form is a function that takes the matrix to factors, or to none, and a line in `RECOGNISERS` of `closed_forms`.

- `search`: joint second-order steps from random starts
- `constructions`: which of the constructions for matrices of any size is taken
- `pencil`: any matrix by one eigenvalue problem
- `low_rank`: a matrix of low rank
- `deflation`: polynomials in the cyclic shift, split into linear factors
- `mixing`: random unitary factors that leave no structure
- `closed_forms`: matrices that are products of a few factors in closed form
- `constructions`: the constructions that reproduce a matrix of any size, and which of them is taken
- `low_rank`: a matrix of low rank
- `pencil`: any square matrix, by one eigenvalue problem
- `deflation`: a polynomial in the cyclic shift as linear factors
- `mixing`: random factors on both sides, which leave no structure in a matrix
"""
