"""From weights that were tuned to the vectors of an adapter: what `structmat.studies` and `structmat.peft` share.

- `table`: `FittedLayer` and `FittedLayers`, how well each layer was met
- `layers`: `fit_layers`, the loop over layers; `LayerTask`, one of them
- `adapter_files`: the files of an adapter in the layout of PEFT
- `plans`: which layers of files are to be fitted, and what is wrong with others
- `changes`: the change of one layer, read when it is needed
- `seeds`: the random numbers of one layer
"""
