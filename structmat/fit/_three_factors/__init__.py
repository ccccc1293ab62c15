"""Fits of three factors, Diagonal @ BlockCirculant @ Diagonal on any grid of blocks: steps in closed form.

A start is a function of the signature `Start` and a line in `STARTS` of `start_list`; one that the fit must never be
worse than, and that every matrix has, stands in `CLOSED_FORMS`.

- `search`: steps from every start, and the choice among what they lead to
- `start_list`: the list of starts
- `basic_starts`, `shift_synchronisation_start`: starting points
- `alternate`: from a starting point to a minimum
- `steps`: the alternating steps
- `spread`: the range of the factors, and least squares that keep it bounded
- `masked`: the same with a weight for every entry
- `blocks`, `vectors`: the matrix and the three vectors as they are laid out for the steps
"""
