"""Products that reproduce a square matrix.

A closed form is a function that takes the matrix to factors, or to none, and a line in `RECOGNISERS` of `closed_forms`.

- `search`: joint second-order steps from random starts
- `closed_forms`: matrices that are products of a few factors in closed form
"""
