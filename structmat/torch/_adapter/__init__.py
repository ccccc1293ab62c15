"""The change of one layer: its row mathematics, its autograd function, its trainable vectors.

- `cdd_adapter`: `CDDAdapter`, the trainable vectors of one change
- `initial_values`: how the vectors start
- `autograd`: the one differentiable operation, that keeps nothing but the input
- `compiled`: the same as compilers take it
- `chunked`: changes and gradients of many rows, in chunks that stay in cache
- `dense_bfloat16`: a change and its gradients by dense matrices, for processors that multiply such matrices fast
- `merged`: the weight plus a change as a dense matrix, for batches of many rows
- `autocast`: what `torch.autocast` does to inputs
- `circulant_rows`: the rows of such a matrix, and sums over its diagonals
- `change`: the change of some rows and its gradients; pure functions
"""
