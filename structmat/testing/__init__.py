"""Checks for operators, your own, ours and those of other libraries, by every law of linear operators."""

from structmat.testing._check import Law, check_operator, laws
from structmat.testing._views import Functions

__all__ = ["Functions", "Law", "check_operator", "laws"]
