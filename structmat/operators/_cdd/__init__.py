"""Products of interleaved circulant and diagonal matrices.

Each file imports only from those below it:

- `layout`: `CDDLayout`, the shapes of the factors without values
- `product`: `CDDProduct`
- `rounding`: how large the rounding errors of such products are
"""
