"""The programs of the folder `benchmarks`."""
