"""Tests of structmat.torch."""
