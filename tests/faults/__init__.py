"""One fault at a time is put into a copy of the package, to see which test file catches it."""
