"""The tables of pair rules: what products, sums, multiples and powers of operators are. It knows no operator type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Rule: TypeAlias = Callable[[Any, Any], Any]


class PairRules:
    """Rules for pairs of types; a rule may return ``NotImplemented`` to leave the pair to the next rule.

    Parameters
    ----------
    commutative : bool
        Whether each rule also serves the swapped pair.

    Notes
    -----
    The order is: the exact pair, the exact left type with anything, anything with the exact right type. `object` stands
    for "anything" when a rule is registered.

    Examples
    --------
    >>> from structmat.extend import PairRules
    >>> join = PairRules(commutative=True)
    >>> @join.rule(int, str)
    ... def _(number, text):
    ...     return f"{number} {text}"
    >>> join.merge("apples", 3), join.merge(1.0, "pear")
    ('3 apples', NotImplemented)
    """

    __slots__ = ("_commutative", "_rules")

    def __init__(self, *, commutative: bool) -> None:
        self._commutative = commutative
        self._rules: dict[tuple[type, type], Rule] = {}

    def rule(self, left: type, right: type) -> Callable[[Rule], Rule]:
        """Register the decorated function for a pair of types.

        Parameters
        ----------
        left, right : type
            Of the two operands, exactly; `object` for any.

        Returns
        -------
        callable
            A decorator, which returns its function.
        """

        def register(function: Rule) -> Rule:
            self._rules[left, right] = function
            return function

        return register

    def merge(self, left: Any, right: Any) -> Any:
        """Return the result of the most specific rule for a pair.

        Parameters
        ----------
        left, right : object
            The operands.

        Returns
        -------
        object
            ``NotImplemented`` where no rule applies.
        """
        for pair in ((type(left), type(right)), (type(left), object), (object, type(right))):
            if (rule := self._rules.get(pair)) is not None and (found := rule(left, right)) is not NotImplemented:
                return found
            if (
                self._commutative
                and (rule := self._rules.get(pair[::-1])) is not None
                and (found := rule(right, left)) is not NotImplemented
            ):
                return found
        return NotImplemented

    def __call__(self, left: Any, right: Any) -> Any:
        """Return what the best rule makes of the pair; the fall-back for any two types always answers."""
        found = self.merge(left, right)
        return self._rules[object, object](left, right) if found is NotImplemented else found


compose = PairRules(commutative=False)
"""What ``left @ right`` is."""


add = PairRules(commutative=True)
"""What ``left + right`` is."""


scale = PairRules(commutative=False)
"""What ``operator * number`` is."""


submatrix = PairRules(commutative=False)
"""What ``operator[a:b, c:d]`` is, of an operator and two ranges: an operator, or of one row or column its entries."""


power = PairRules(commutative=False)
"""What ``operator ** integer`` is."""


prepare = PairRules(commutative=False)
"""Of an operator and the settings of its products: base classes reach what prepares operators without importing it."""
