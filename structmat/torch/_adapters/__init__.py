"""The trainable vectors of a change, one module for each way to hold them; each file imports only from those below it.

- `head_stack`: linear layers that are trained beside the adapters, one for each sample of a batch
- `bank_adapter`: the changes of all adapters of a bank, of which each sample of a batch has one
- `current_batch`: which of them the rows have that a layer gets
- `recomputation`: whether gradient checkpointing computes a forward pass again
- `adapter`: those of one layer, or of several matrices such as those of experts, `CDDAdapter`
- `from_lora`: what users of LoRA write, and what to write instead
- `options`: what can be chosen for a change, with defaults and checks, `AdapterOptions`
"""
