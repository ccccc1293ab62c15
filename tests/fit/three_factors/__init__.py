"""Tests of `structmat.fit`."""
