"""A frozen layer with changes: linear layers, convolutions of kernel size 1, embeddings."""
