"""Fits of three factors."""
