"""The change of one layer: its row mathematics, its autograd function, its trainable vectors.

- `cdd_adapter`: `CDDAdapter`, the trainable vectors of one change
- `initial_values`: how the vectors start
- `autograd`: the one differentiable operation, that keeps nothing but the input
- `compiled`: the same as compilers take it
- `chunked`: changes and gradients of many rows, in chunks that stay in cache
- `merged`: the weight plus a change as a dense matrix, for batches of many rows
- `change`: the change of some rows and its gradients; pure functions
"""
