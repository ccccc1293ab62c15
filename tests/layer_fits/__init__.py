"""Fits of all layers of a checkpoint, without the command and the folders around them."""
