"""What `adapter_pairs.py` runs: three questions on D C D, and what is trained to answer each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from _fair_plan import Case

TRIAL_SEED = 100
TRIED = (0.03, 0.1, 0.3)
BEST = MappingProxyType({"goemotions": (0.1,), "sst2": (0.1,), "banking77": (0.1,)})
"""The rates of D C D on query and value layers, by the trials of `fair_adapters.py`."""

BEST_OF_LORA = MappingProxyType({"goemotions": (0.01,), "sst2": (0.003,), "banking77": (0.003,)})
"""Those of LoRA r = 2, likewise."""

BEST_OF_FEED_FORWARD = MappingProxyType({"goemotions": (0.1,), "sst2": (0.03,), "banking77": (0.1,)})
"""Those of D C D in the first feed-forward layers of all blocks, likewise."""


@dataclass(frozen=True)
class Arm:
    """What is trained, and what of `fair_adapters.py` with the same seeds it is compared with."""

    question: str
    method: str
    size: int
    rates: Mapping[str, tuple[float, ...]]
    """By task. Where there are several, one trial of each on held-back rows says which is taken."""
    places: str = "query-value"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    beside: tuple[str, int] = ("cdd", 3)
    """The method on query and value layers that it is compared with, and its size."""

    def on(self, task: str) -> Case:
        """Return the case of a task."""
        return Case(task, self.places, self.method, self.size)

    def baseline(self, task: str) -> Case:
        """Return what it is compared with."""
        return Case(task, "query-value", *self.beside)


ARMS = (
    Arm("clipping", "cdd-apart", 3, BEST, seeds=tuple(range(10))),
    Arm("clipping", "cdd-unclipped", 3, BEST),
    Arm("clipping", "cdd-factors", 3, BEST, seeds=tuple(range(10))),
    Arm("clipping", "lora-apart", 2, BEST_OF_LORA, beside=("lora", 2)),
    Arm("place", "cdd", 3, BEST_OF_FEED_FORWARD, "upper-intermediate"),
    Arm("form", "product-cdc", 384, {"goemotions": TRIED, "banking77": (0.1,)}),
    Arm("form", "product-dc", 192, {"goemotions": (0.1,), "banking77": (0.1,)}),
)
"""The forms have 1,152 numbers in a layer of 384 x 384, as D C D has. So has C3A with blocks of 128, one matrix of
circulant blocks; its runs are those of `fair_adapters.py`."""
