"""Fits of three factors: starts, steps, recovery."""
