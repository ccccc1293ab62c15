"""An adapter in a folder, in the format of Hugging Face PEFT, which needs no PEFT here.

Each file imports only from those below it:

- `load`: a folder checked against a model and put into it, `load_adapter`, `using_adapter`
- `replacement`: values for tensors of a model, planned, checked, and then written in place
- `save`: what of a model belongs in a folder, `save_adapter`
- `folder`: the two files of a folder, written and read, whatever the model is
- `low_bits`: vectors in few bits a number, for small files
- `tensors`: the tensors of a model by the keys that they have in files
"""
