"""Products that reproduce a square matrix.

A closed form is a function that takes the matrix to factors, or to none, and a line in `RECOGNISERS` of `recognisers`.

- `forms`: what all of them find
- `exact_search`: joint second-order steps from random starts
- `recognisers`: matrices that are products of a few factors in closed form
- `constructions`: the constructions that reproduce a matrix of any size, and which of them is taken
- `low_rank`, `cyclic_band`: a matrix of low rank, and one of few neighbouring cyclic diagonals
- `plain_band`: one of few diagonals without corners
- `pencil`: any square matrix, by one eigenvalue problem
- `deflation`: a polynomial in the cyclic shift as linear factors
- `real_deflation`: a real one as real factors
- `rotations`: a unitary matrix as layers of rotations of neighbours
- `unitary`, `real_rotations`: unitary factors of unitary matrices, and real ones that lose few digits, from such layers
- `mixing`: random factors on both sides, which leave no structure in a matrix
"""
