"""The change of one layer: its row mathematics, its autograd function, its trainable vectors."""
