"""What `fair_adapters.py` runs: methods and sizes, rates and rows.

The rule is the same for every method and size: `trial_seeds` x four rates of its method, a factor of about three apart,
and where the best of them is the first or the last, one rate further on that side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

RATES = {
    "head": (0.01, 0.03, 0.1, 0.3),
    "full": (3e-5, 1e-4, 3e-4, 1e-3),
    "lora": (3e-4, 1e-3, 3e-3, 1e-2),
    "adalora": (0.01, 0.03, 0.1, 0.3),
    "c3a-corrected": (0.1, 0.3, 1.0, 3.0),
    "fourierft": (0.01, 0.03, 0.1, 0.3),
    "cdd": (0.003, 0.01, 0.03, 0.1),
}
"""For each method around the rates that its authors, PEFT or earlier runs of ours found best.

Those of CDD are rates of its factors: an optimiser gets a thirtieth.
"""
RATES |= dict.fromkeys(("cdd-shared", "cdd-blocks", "scales", "cdd-scales", "cdd-entries"), RATES["cdd"])

CASE = ("task", "places", "method", "size")
RUN = (*CASE, "stage", "lr", "seed")
"""The columns that name a case, and a run: what its result depends on, beside the processor."""


@dataclass(frozen=True)
class Case:
    """What is trained: one line of the report."""

    task: str
    places: str
    method: str
    size: int | None


@dataclass(frozen=True)
class Protocol:
    """How a task is run. Trials train as the last runs do, since a rate that is best in short ones may fail later."""

    rows: int = 1000
    epochs: int = 3
    held_back: int = 1000
    """Other training rows, for the score of a trial."""
    test_rows: int = 1800
    """At most so many, for the score of a last run."""
    trial_seeds: tuple[int, ...] = (100, 101)
    final_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    metric: str = "accuracy"
    """What a rate is chosen by and methods are compared by."""
    max_tokens: int = 64
    batch: int = 32
    head_lr: float = 0.01
    """Of the head beside an adapter."""
    data: str | None = None
    """The task whose data these are, if it has another name."""
    held_out: bool = False
    """Whether nothing was ever chosen by this task but rates, by its own trials."""

    @property
    def is_common(self) -> bool:
        """Whether all methods are compared on the task."""
        return self.data is None and not self.held_out


PROTOCOLS = {
    "goemotions": Protocol(),
    "goemotions-more": Protocol(rows=4000, data="goemotions"),
    "sst2-more": Protocol(rows=4000, data="sst2"),
    "banking77-more": Protocol(rows=4000, data="banking77"),
    "cola": Protocol(rows=4000, metric="matthews"),  # with 1,000 rows next to nothing is learnt
    "sst2": Protocol(),
    "banking77": Protocol(),
    "mrpc": Protocol(rows=2000, max_tokens=128),
    "trec": Protocol(held_out=True),
    "sick": Protocol(held_out=True),
    "counterfactual": Protocol(held_out=True),
}

LONG = {"cola", "mrpc"}
"""Tasks whose runs take three to six times as long: not every size is run there."""

ON_ALL_TASKS = {
    "query-value": (
        ("head", None), ("lora", 8), ("cdd", 3), ("lora", 1), ("lora", 2), ("c3a-corrected", 128), ("cdd-blocks", 64),
        ("fourierft", 1152), ("adalora", 8), ("full", None), ("cdd", 5), ("cdd", 7), ("lora", 16),
    ),
    "intermediate": (("lora", 8), ("cdd", 3), ("lora", 1), ("lora", 2), ("cdd-shared", 3)),
    "all-linear": (("lora", 8), ("cdd", 3), ("lora", 1), ("lora", 2), ("cdd-shared", 3)),
}  # fmt: skip
"""Methods and sizes by place. "intermediate" is the first layer of each feed-forward network, "all-linear" includes the
rectangles. The LoRA whose number of parameters is nearest to that of D C D is wherever D C D is."""

ON_SHORT_TASKS = {
    "query-value": (
        ("cdd-blocks", 32), ("lora", 4), ("c3a-corrected", 64), ("fourierft", 3072), ("cdd-blocks", 128),
        ("c3a-corrected", 384), ("fourierft", 384), ("adalora", 2),
    ),
    "intermediate": (("cdd", 5), ("cdd-scales", 3)),
    "all-linear": (("cdd-blocks", 64), ("c3a-corrected", 128), ("fourierft", 1152)),
}  # fmt: skip

MORE_ROWS = (("lora", 8), ("cdd", 3), ("lora", 1), ("cdd-blocks", 64), ("lora", 4))
"""On query and value layers with more rows, which may tell apart what is equal with few: CDD beside LoRA."""

ON_HELD_OUT_TASKS = (("cdd", 3), ("lora", 2), ("lora", 8))
"""D C D, the LoRA of the nearest size, and the usual one."""

FORMS = (("scales", None), ("cdd-scales", 3), ("cdd-entries", 3))
"""Tried on held-back rows, the last one on query and value layers, where it was behind."""


COMPARED = (("cdd", 3), ("lora", 2), ("lora", 8))
"""What the main sentences compare: D C D, the LoRA of nearest size, and the usual LoRA."""

COMPARED_ON = ("goemotions", "sst2", "banking77", "cola", "trec", "counterfactual")
"""The tasks of the main sentences, in the order of the runs: those of `few_parameters.py`, two of them held out."""


def compared() -> list[Case]:
    """Return the cases of the main sentences, by tasks: their last runs are all of the same code."""
    places = ("query-value", "intermediate")
    return [Case(task, place, *sized) for task in COMPARED_ON for place in places for sized in COMPARED]


def tried() -> list[Case]:
    """Return what has trials, and last runs only if `cases` has it: `FORMS`, and rates with more rows."""
    tasks = ("goemotions", "sst2", "banking77")
    sized = {"query-value": FORMS, "intermediate": (*FORMS[:2], ("lora", 3)), "all-linear": FORMS[:2]}
    found = [Case(task, places, *each) for places, several in sized.items() for each in several for task in tasks]
    return found + [Case(f"{task}-more", "all-linear", *each) for each in (("cdd", 3), ("lora", 8)) for task in tasks]


def cases() -> list[Case]:
    """Return everything in the order of the runs."""
    found = []
    for places, sizes in ON_ALL_TASKS.items():
        for task in ("goemotions", "sst2", "banking77", "cola", "mrpc"):
            more = () if task in LONG else ON_SHORT_TASKS[places]
            found += [Case(task, places, *sized) for sized in (*sizes, *more)]
    found += [Case("goemotions-more", "query-value", *sized) for sized in MORE_ROWS]
    held_out = [task for task, protocol in PROTOCOLS.items() if protocol.held_out]
    places = ("intermediate", "query-value", "all-linear")
    return found + [Case(t, p, *sized) for p in places for t in held_out for sized in ON_HELD_OUT_TASKS]


def beyond(rates: tuple[float, ...], best: float) -> float | None:
    """Return one rate further if the best one is the first or the last, in the steps 1, 3, 10, 30."""
    if best not in {rates[0], rates[-1]}:
        return None
    power = floor(log10(best) + 1e-9)
    ones = round(best / 10.0**power) == 1
    if best == rates[-1]:
        return float(f"3e{power}") if ones else float(f"1e{power + 1}")
    return float(f"3e{power - 1}") if ones else float(f"1e{power}")
