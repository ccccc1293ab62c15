"""Operators made of operators: products, sums, multiples, and prepared operators; the fall-back rules of their tables.

A pair for which no family has a rule becomes a lazy Product or Sum here; nothing is ever multiplied out.
"""

from __future__ import annotations

from structmat.operators._combinations.prepared import Prepared, delegate
from structmat.operators._combinations.product import Chain, Product
from structmat.operators._combinations.scaled import Scaled, identity_factor
from structmat.operators._combinations.sum import Sum

__all__ = ["Chain", "Prepared", "Product", "Scaled", "Sum", "delegate", "identity_factor"]
