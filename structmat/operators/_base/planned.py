"""Operators whose products are those of a plan of the engine, made for each."""

from __future__ import annotations

from abc import abstractmethod

from structmat._arrays.typing import Array, Namespace
from structmat._engine import Plan, Settings
from structmat.operators._base.linear_operator import LinearOperator

__all__ = ["Planned"]


class Planned(LinearOperator):
    """An operator with the hook `_plan` in place of `_matvec` and `_rmatvec`."""

    __slots__ = ()

    @abstractmethod
    def _plan(self, settings: Settings, xp: Namespace) -> Plan:
        """What computes the products."""

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._plan(Settings(), xp).apply(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return self._plan(Settings(), xp).adjoint().apply(y, xp)
