"""What all operators share: the class that people call, its hooks, storage, indices and the rules of arithmetic.

Each file imports only from those below it:

- `wrapper`: an operator made of one other
- `parts`: the parts of an operator made of others
- `constant`: operators without parameters, for every library
- `combination`: an operator made of several others
- `linear_operator`: the base class of all operators, with its public methods
- `hooks`: what a kind of operators tells of its matrix, `Hooks`
- `arithmetic`: the operators of Python, by tables of rules for pairs of types, `PairRules`
- `storage`: the arrays and operators that an operator holds: its batch, dtype and device
- `spectral_functions`: functions of a matrix by its eigenvalues
- `operands`: the arrays that an operator is multiplied by
- `near`: what is near a matrix, by which systems with it are solved faster
- `indices`: rows and columns by integers, slices, masks and arrays
- `determinants`: products of many numbers that do not overflow
- `closed_forms`: the methods that only some operators have, and `NoClosedFormError`
"""
