"""Names of weights in two places that mean the same, but for the leading parts that wrapping classes add."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from structmat._files.wrappers import unwrapped

__all__ = ["fitting_name", "pair_names"]


def fitting_name(name: str, stored: Collection[str]) -> str | None:
    """Return which of the stored names fits a name, None if none does, or several."""
    if name in stored:
        return name
    plain = f".{unwrapped(name)}"
    fits = [key for key in stored if (end := f".{unwrapped(key)}").endswith(plain) or plain.endswith(end)]
    return fits[0] if len(fits) == 1 else None


def pair_names(names: Iterable[str], stored: Collection[str]) -> dict[str, str]:
    """Return the stored name of each name that has one; no stored name is that of two.

    What wrappers add inside of names does not count.

    Equal names go together first: what has an equal partner fits nothing else. Of the rest each name takes the only one
    that is left and fits it, unless another name has no other either, and so on: what is in doubt has no partner.
    """
    wanted = dict.fromkeys(names)
    equal = {name: name for name in wanted if name in stored}
    asked, plain = (_by_plain_name(name for name in each if name not in equal) for each in (wanted, stored))
    return equal | {asked[name]: plain[key] for name, key in _paired(asked, plain).items()}


def _by_plain_name(names: Iterable[str]) -> dict[str, str]:
    """Return names by what they are without wrappers; those that several share are in doubt."""
    plain = [(unwrapped(name), name) for name in names]
    counts = Counter(name for name, _ in plain)
    return {name: full for name, full in plain if counts[name] == 1}


def _paired(wanted: Collection[str], stored: Collection[str]) -> dict[str, str]:
    found = {name: name for name in wanted if name in stored}
    free = set(stored) - set(found)
    endings: dict[str, set[str]] = {}
    for key in free:
        for ending in _endings(key):
            endings.setdefault(ending, set()).add(key)
    fits = {name: endings.get(name, set()) | (free & set(_endings(name))) for name in wanted if name not in found}
    while True:
        only = {name: next(iter(keys)) for name, keys in fits.items() if len(keys) == 1}
        claims = Counter(only.values())
        new = {name: key for name, key in only.items() if claims[key] == 1}
        if not new:
            return found
        found |= new
        fits = {name: keys - set(new.values()) for name, keys in fits.items() if name not in new}


def _endings(name: str) -> list[str]:
    """Return what is left of a name without its first parts."""
    parts = name.split(".")
    return [".".join(parts[k:]) for k in range(1, len(parts))]
