"""A whole model: which layers are adapted, by which adapters, at what cost, in which files."""
