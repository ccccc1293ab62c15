"""The bridge to linear_operator and GPyTorch: an operator of tensors as a class of that package.

It needs operators alone and none of the layers of `structmat.torch`, which gives users `as_linear_operator`.

- `bridge`: `as_linear_operator`
- `structured_operator`: the class, in a module of its own that imports linear_operator
"""
