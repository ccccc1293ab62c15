"""A small training, a file and a fresh process for each tool; `nox -s ecosystem` runs them."""
