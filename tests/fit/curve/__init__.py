"""Curves of errors against the number of factors."""
