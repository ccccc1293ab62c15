"""The parts of `finetune_minilm.py`, in the order in which a run meets them.

- `data`: the tasks, their rows, and batches of sentences of like length
- `encoder`: the sentence encoder, from a folder, the Hub or a package, and the classifier on top of it
- `methods`: what is trained: the head alone, an adapter, or everything; a new adapter is one function here
- `train`: one run, and what it costs
- `report`: files, table and plot
"""
