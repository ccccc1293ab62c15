"""The layers with adapters that PEFT puts into a model; each file imports only from those below it.

- `tuner_layer`: a layer with its adapters; its kind and the mathematics are those of `structmat.torch`
- `tuner_parameters`: a module of which parameters have adapters
- `tuner_module`: what both share, which is merging and scaling
- `mixture`: the changes of a layer in a mixed batch, computed at once
"""
