"""The change of some rows, and its gradients: what all layers compute."""
