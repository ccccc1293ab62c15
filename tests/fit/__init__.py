"""Fits: arguments, results and laws that hold for all of them."""
