"""Fits of any number of factors."""
