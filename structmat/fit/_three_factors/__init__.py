"""Fits of three factors, Diagonal @ BlockCirculant @ Diagonal on any grid of blocks: steps in closed form.

A start is a function of the signature `Start` and a line in `STARTS` of `all_starts`; one that the fit must never be
worse than, and that every matrix has, stands in `CLOSED_FORMS`.

- `all_starts`: the lists of starts, and the choice among what they lead to
- `starts`, `shift_synchronisation`: starting points
- `alternate`: from a starting point to a minimum
- `steps`: the alternating steps
- `spread`: the range of the factors, and least squares that keep it bounded
- `masked`: the same with a weight for every entry
- `blocks`, `vectors`: the matrix and the three vectors as they are laid out for the steps
"""
