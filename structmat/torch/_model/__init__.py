"""A whole model: layers wrapped, switched, saved; what that costs, and rates that suit it.

- `adapt_model`: `adapt`
- `targets`, `wrapping`: which layers are adapted; all of them are wrapped, or none
- `patterns`: other options for some layers
- `sharing`: circulants that the same layers of all blocks share
- `adapter_actions`: merge, remove, disable, set, choose for each sample
- `learning_rates`: `param_groups`, which suit every size
- `costs`: parameters, operations and bytes
- `trained`: what is trained beside the changes, such as a head
- `files`: state dicts and safetensors files of all that is trained
"""
