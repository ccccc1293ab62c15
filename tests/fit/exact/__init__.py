"""Products that reproduce a matrix."""
