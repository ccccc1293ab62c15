"""`AdapterOptions`: what can be chosen for the change of a layer.

A new option is a field here, with its default, its check and a line of help; an argument of `CDDAdapter`, which uses
it; a field of `structmat.peft.CDDConfig`; and a default in `structmat._adapter_format`, for folders that are written
without torch. Folders of adapters hold all fields, and are read and checked by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from structmat._adapter_format import FACTOR_SCALE
from structmat._arguments import finite, odd_factors, positive, share, side_of_blocks

__all__ = ["AdapterOptions"]


def _option(default: Any, check: Callable[[Any, str, str], Any], text: str) -> Any:
    """Return a field with the function that checks its values, and the help that `CDDConfig` shows.

    The check is called with a value, with the name of who was given it, and with the name of the option, for errors.
    """
    return field(default=default, metadata={"check": check, "help": text})


@dataclass(frozen=True)
class AdapterOptions:
    """The options of one change; `checked` makes them from values that users or files give."""

    n_factors: int = _option(3, odd_factors, "Number of diagonals and circulants: odd, at least 3.")
    block_size: int | Literal["min", "toeplitz"] = _option(
        "min",
        side_of_blocks,
        "Side of the circulants; 'min' is the smaller of a layer's numbers of features, 'toeplitz' their sum less one.",
    )
    alpha: float = _option(1.0, finite, "What the change is multiplied by; not trained.")
    dropout: float = _option(0.0, share, "Share of the change's inputs that are set to zero in training.")
    factor_scale: float = _option(
        FACTOR_SCALE, positive, "Diagonals over their trained vectors; circulants have a root less."
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(cls.__dataclass_fields__)

    @classmethod
    def checked(cls, values: Mapping[str, Any], owner: str) -> Self:
        """Return the options that stand among some values, checked.

        Parameters
        ----------
        values : mapping
            All options by name; other entries are ignored.
        owner : str
            The name of who was given the values, for errors.

        Raises
        ------
        KeyError
            If an option is missing.
        ValueError, TypeError
            If a value is none that the option may have.
        """
        given = {}
        for option in fields(cls):
            check = option.metadata["check"]
            given[option.name] = check(values[option.name], owner, option.name)
        return cls(**given)
