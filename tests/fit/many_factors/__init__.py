"""Fits of any number of factors: starts, solvers, recovery."""
