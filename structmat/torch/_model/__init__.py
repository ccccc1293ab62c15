"""A whole model: which of its layers names mean, and these adapted and plain again.

Each file imports only from those below it:

- `adapt`: `adapt`, `remove_adapters`
- `targets`: which layers names mean
- `parameter_names`: which stacked matrices of experts names mean
- `wrapping`: adapted layers put into a model and found again, and what else is trained
- `model_state`: a model as it is now, to be put back after an error or at the end of a context
"""
