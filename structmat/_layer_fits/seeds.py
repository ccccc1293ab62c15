"""Random numbers that belong to a unit of work, wherever and whenever it runs."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["unit_rng"]


def unit_rng(rng: int, key: str) -> np.random.Generator:
    """Return the random number generator of one unit of work: the same wherever and whenever it runs.

    Parameters
    ----------
    rng : int
        Seed of the whole run.
    key : str
        Of the unit.

    Returns
    -------
    numpy.random.Generator
        Independent of that of other keys.

    Examples
    --------
    >>> from structmat.studies import unit_rng
    >>> unit_rng(0, "layer 1").integers(100) == unit_rng(0, "layer 1").integers(100)
    True
    """
    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), "<u4")
    return np.random.default_rng([rng, *words.tolist()])
