"""Fits of any number of factors: a search from many starts.

A start that is read off the matrix is a file with one function, and a line in `MATRIX_STARTS` of `start_list`. A solver
that takes the matrix itself is a file that makes `descent.Steps`, and a line in `MATRIX_SOLVERS` of `solver_list`.

- `problem`: the matrix scaled, its closed forms, the answer scaled back
- `search`: stages of starts, exploration, polish and growth from fewer factors
- `runs`: what the solvers make of chains
- `start_list`: the list of starts that are read off the matrix
- `peeling_start`: planted products, outermost factors first
- `low_rank_start`: the truncated SVD of rank two in five factors
- `rank_three_start`: that of rank three in seven
- `random_starts`: random orthogonal factors, and the weighted matrix of rank one
- `adam`, `lbfgs`: exploration and polish, first order
- `objective`, `spectra`: the error and its gradient by transforms
- `array_work`: what these ask of NumPy and torch beyond the array API standard
- `trailing_factors`: their last two factors, which act on the identity, without transforms
- `parameters`: all vectors of a product, scaled, in one flat vector
- `equalisation`: a way in to matrices of widely spread singular values
- `solver_list`: the list of solvers on the matrix
- `levenberg_marquardt`, `als`: joint steps on all factors, and one factor after the other
- `descent`: what these two share
- `diagonal_forms`: a square product by its diagonal forms, its products and derivatives
"""
