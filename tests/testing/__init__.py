"""The checks of operators by laws: what they catch, and what the strategies draw."""
