"""The layers, and the vectors that they train."""
