"""Transforms and engines."""
