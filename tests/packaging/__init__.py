"""The package as it is installed and released."""
