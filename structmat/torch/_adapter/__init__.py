"""The change of one layer: its row mathematics, its autograd function, its trainable vectors.

- `cdd_adapter`: `CDDAdapter`, the trainable vectors of one change
- `initial_values`: how the vectors start
- `autograd`: the one differentiable operation, chunked, that keeps nothing but the input
- `rows`: the change of some rows and its gradients; pure functions
"""
