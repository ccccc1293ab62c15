"""Operators; `test_laws` holds every one of `tests/operator_registry.py` to every law."""
