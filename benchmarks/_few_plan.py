"""What `few_parameters.py` runs: tasks, methods and sizes."""

from __future__ import annotations

from dataclasses import dataclass

from _fair_plan import Case

TASKS_OF_THE_STUDY = ("goemotions", "sst2", "banking77", "trec", "counterfactual", "cola")
"""In the order of the runs. Of the fourth and the fifth nothing but rates was ever chosen."""


@dataclass(frozen=True)
class Sized:
    """A method, the layers that it adapts and its size."""

    method: str
    size: int | None = None
    places: str = "query-value"
    """Of `finetune.methods.PLACES`, or "own" for those that PEFT takes where none are named."""

    def on(self, task: str) -> Case:
        """Return the case of a task."""
        return Case(task, self.places, self.method, self.size)


SIZED = (
    Sized("cdd", 3),
    Sized("lora", 2),
    Sized("ia3", places="own"),
    Sized("ln-tuning", places="own"),
    Sized("ia3"),
    Sized("road", 4),
    Sized("vera", 768),
    Sized("waveft", 1152),
    Sized("shira", 2),
    Sized("miss", 3),
    Sized("unilora", 13824),
    Sized("oft", 8),
    Sized("vblora", 32),
    Sized("randlora", 192),
    Sized("boft", 4),
)
"""In the order of the runs. The query and value layers are PEFT's choice for all others.

Where a method has a size, its number of parameters is, as a ratio, as near as the size allows to the 13,824 of D C D.
"""

FOUR_BITS = Sized("cdd-4-bits", 3)
"""D C D as a file with four bits a number gives it back: no method of its own, so that it runs behind all of them."""


def cases() -> list[Case]:
    """Return everything in the order of the runs."""
    of_methods = [sized.on(task) for task in TASKS_OF_THE_STUDY for sized in SIZED]
    return of_methods + [FOUR_BITS.on(task) for task in TASKS_OF_THE_STUDY]
