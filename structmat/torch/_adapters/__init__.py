"""The trainable vectors of a change, one module for each way to hold them; each file imports only from those below it.

- `head_stack`: linear layers that are trained beside the adapters, one for each sample of a batch
- `sample_changes`: the changes of a layer where each sample of a batch has one of several
- `adapter`: those of one layer, or of several matrices such as those of experts, `CDDAdapter`
- `from_lora`: what users of LoRA write, and what to write instead
- `options`: what can be chosen for a change, with defaults and checks, `AdapterOptions`
"""
