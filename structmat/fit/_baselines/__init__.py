"""The best members of other families, for comparison."""
