"""Names that come from outside, such as those of layers, made safe for terminals, pages, figures and file systems."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "counted",
    "encodable",
    "figure_text",
    "first_bytes",
    "first_names",
    "last_bytes",
    "natural_key",
    "printable",
]


def printable(text: str) -> str:
    r"""Return a text with what is not printed as escapes: ``\x1b`` would command a terminal, and no XML may hold it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def encodable(text: str) -> str:
    r"""Return a text that any file can hold: names of files may have bytes that are no letters, here ``\udcff``."""
    return text.encode(errors="backslashreplace").decode()


def figure_text(text: str, most: int = 34) -> str:
    """Return a text that matplotlib shows as it is, not as mathematics, and of a long one the end.

    Legends leave out what begins with an underscore, so that a space comes before it.
    """
    text = printable(text)
    text = f" {text}" if text.startswith("_") else text
    return (text if len(text) <= most else f"…{text[1 - most :]}").replace("$", r"\$")


def first_bytes(name: str, most: int) -> str:
    """Return the beginning of a name: as much of it as `most` bytes hold, which is what file systems count."""
    return name.encode(errors="replace")[:most].decode(errors="ignore")


def last_bytes(name: str, most: int) -> str:
    """Return the end of a name: as much of it as `most` bytes hold."""
    return name.encode(errors="replace")[-most:].decode(errors="ignore")


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts: ``1 layer``, ``1,024 layers``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def first_names(names: Sequence[str], most: int) -> str:
    """Return the first of some names for a message, and dots where there are more."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key to sort names by: ``layer.2`` comes before ``layer.10``."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]
