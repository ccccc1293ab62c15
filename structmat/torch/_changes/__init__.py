"""The mathematics of a change ``alpha D C D``: how it meets rows, weights and experts. No modules, no names.

Each file imports only from those below it:

- `experts`: rows of which each has the change of its expert
- `operation`: the one differentiable operation of changes, which keeps nothing but the input
- `rows`: a change and its gradients, row by row and in chunks; pure functions
- `dense`: a change as a dense matrix, its sum with a weight, and its gradients
"""
