"""A frozen layer with changes: linear layers, convolutions of kernel size 1, embeddings.

- `kinds`: the list of them: a new kind is a file with its class, and a line there
- `linear`, `conv`, `embedding`: `CDDLinear`, `CDDConv`, `CDDEmbedding`
- `adapted_layer`: `AdaptedLayer`, what all kinds share: several adapters, merging, choosing
- `forward`: outputs of a base plus changes, for layers of one's own too
- `frozen_base`: what may be a base: its features, and how it stores its weight
- `tensor_parallel`: bases of which each process has a piece, which may not
"""
