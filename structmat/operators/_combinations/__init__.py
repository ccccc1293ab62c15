"""Operators made of operators: products, sums, multiples, and prepared operators; the fall-back rules of their tables.

A pair for which no family has a rule becomes a lazy Product or Sum here; nothing is ever multiplied out.

- `product`, `sum`, `scaled`: lazy combinations, and the fall-back rules
- `parts`: checks that they share, and how prepared parts compute their products
- `preparation`: how an operator is prepared, and the rules for prepared ones
- `prepared`: the operator that `prepare` returns
"""

from __future__ import annotations

import structmat.operators._combinations.preparation  # noqa: F401  # registers the rules
from structmat.operators._combinations.prepared import Prepared
from structmat.operators._combinations.product import Chain, Product
from structmat.operators._combinations.scaled import Scaled, identity_factor
from structmat.operators._combinations.sum import Sum

__all__ = ["Chain", "Prepared", "Product", "Scaled", "Sum", "identity_factor"]
