"""What other people's tools do to layers and models, and what the rest of the package asks about them.

- `compilers`: compilers, exporters, tracers and transforms, which see the operations of a layer
- `calls`: modules that read the weight of a layer without calling it
- `engines`: engines for several processes, and other wrappers of whole models
- `nested_tensors`: samples with different numbers of rows
"""
