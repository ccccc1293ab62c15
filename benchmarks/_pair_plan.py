"""What `adapter_pairs.py` runs: three questions on D C D, and what is trained to answer each."""

from __future__ import annotations

from dataclasses import dataclass

from _fair_plan import Case

RATE = 0.1
"""That of the factors of D C D on query and value layers, the best of `fair_adapters.py` on each of these tasks."""


@dataclass(frozen=True)
class Arm:
    """What is trained with which seeds, beside D C D on query and value with the same ones."""

    question: str
    method: str
    size: int
    places: str = "query-value"
    tasks: tuple[str, ...] = ("goemotions", "sst2", "banking77")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] = (RATE,)
    """Where there are several, one trial of each on held-back rows says which is taken."""

    def on(self, task: str) -> Case:
        """Return the case of a task."""
        return Case(task, self.places, self.method, self.size)


TRIED = (0.03, 0.1, 0.3)
TWO = {"tasks": ("goemotions", "banking77"), "seeds": (0, 1, 2), "rates": TRIED}
TEN = tuple(range(10))
OURS = Arm("clipping", "cdd", 3, seeds=TEN)
"""D C D as it is."""

ARMS = (
    OURS,
    Arm("clipping", "cdd-apart", 3, seeds=TEN),
    Arm("clipping", "cdd-factors", 3, seeds=TEN),
    Arm("clipping", "cdd-unclipped", 3, seeds=TEN),
    Arm("place", "cdd", 3, "upper-intermediate", rates=TRIED),
    Arm("form", "product-cdc", 384, **TWO),
    Arm("form", "product-dc", 192, **TWO),
    Arm("form", "product-c", 128, **TWO),
)
"""The forms have 1,152 numbers in a layer of 384 x 384, as D C D does."""

TRIAL_SEED = 100
