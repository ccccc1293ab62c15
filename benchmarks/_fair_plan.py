"""What `fair_adapters.py` runs: methods and sizes, rates, rows, and the order in which results come.

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
    "cdd-shared": (0.003, 0.01, 0.03, 0.1),
    "cdd-blocks": (0.003, 0.01, 0.03, 0.1),
}
"""For each method around the rates that its authors, PEFT or earlier runs of ours found best.

Those of CDD are rates of its factors: an optimiser gets a thirtieth.
"""


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


PROTOCOLS = {
    "goemotions": Protocol(),
    "goemotions-more": Protocol(rows=4000, data="goemotions"),
    "cola": Protocol(rows=4000, metric="matthews"),  # with 1,000 rows next to nothing is learnt
    "sst2": Protocol(),
    "banking77": Protocol(),
    "mrpc": Protocol(rows=2000, max_tokens=128),
}

QUERY_VALUE = (
    ("head", None),
    ("lora", 8),
    ("cdd", 3),
    ("lora", 1),
    ("c3a-corrected", 128),
    ("cdd-blocks", 64),
    ("fourierft", 1152),
    ("full", None),
    ("cdd", 5),
    ("lora", 2),
    ("cdd-blocks", 32),
    ("lora", 4),
    ("cdd", 7),
    ("adalora", 8),
    ("c3a-corrected", 64),
    ("fourierft", 3072),
    ("lora", 16),
    ("cdd-blocks", 128),
    ("c3a-corrected", 384),
    ("fourierft", 384),
    ("adalora", 2),
)
"""Methods and sizes on query and value layers, what is compared most often first."""

INTERMEDIATE = (
    ("lora", 8),
    ("cdd", 3),
    ("lora", 1),
    ("lora", 2),
    ("cdd-shared", 3),
)
"""On the first layer of each feed-forward network, the best place for CDD on held-back rows."""

ALL_LINEAR = (
    ("lora", 8),
    ("cdd", 3),
    ("lora", 1),
    ("lora", 2),
    ("cdd-blocks", 64),
    ("c3a-corrected", 128),
    ("fourierft", 1152),
    ("cdd-shared", 3),
)
"""On all linear layers, rectangles included."""

MORE_ROWS = (
    ("lora", 8),
    ("cdd", 3),
    ("lora", 1),
    ("cdd-blocks", 64),
    ("lora", 4),
)
"""On query and value layers with more rows, which may tell apart what is equal with few: CDD beside LoRA."""

LONG = {"cola", "mrpc"}
"""Tasks whose runs take three to six times as long: not every size is run there."""

NEAREST = ("lora", 2)
"""The LoRA whose number of parameters is nearest to that of D C D: run on every task, wherever D C D is."""

LONG_SIZES = {("full", None), ("cdd", 5), ("cdd", 7), ("lora", 16)}
"""What is run there on query and value beside `FIRST`, `NEAREST` and `SECOND`."""

FIRST = {("head", None), ("lora", 8), ("cdd", 3), ("lora", 1), ("cdd-shared", 3)}
"""What is run on every task before anything else is."""

SECOND = {("full", None), ("adalora", 8), ("c3a-corrected", 128), ("fourierft", 1152), ("cdd-blocks", 64)}
"""What is run next: each method with one size."""


def cases() -> list[Case]:
    """Return everything in the order of the runs."""
    blocks = [
        *((task, "query-value", QUERY_VALUE) for task in ("goemotions", "sst2", "banking77", "cola", "mrpc")),
        *((task, "intermediate", INTERMEDIATE) for task in ("goemotions", "sst2", "banking77", "cola", "mrpc")),
        *((task, "all-linear", ALL_LINEAR) for task in ("goemotions", "sst2", "banking77", "cola", "mrpc")),
        ("goemotions-more", "query-value", MORE_ROWS),
    ]
    everything = [Case(task, places, *sized) for task, places, methods in blocks for sized in methods]
    return sorted(filter(_wanted, everything), key=_turn)


def _wanted(case: Case) -> bool:
    sized = case.method, case.size
    if case.task not in LONG:
        return True
    return sized in FIRST or sized == NEAREST or (case.places == "query-value" and sized in SECOND | LONG_SIZES)


def _turn(case: Case) -> int:
    """Return the number of the round in which a case is run."""
    sized = case.method, case.size
    if sized in FIRST and case.places == "query-value":
        return 1
    return 2 if case.places == "query-value" and sized in SECOND else 3 if sized in FIRST else 4


def beyond(rates: tuple[float, ...], best: float) -> float | None:
    """Return one rate further if the best one is the first or the last, in the steps 1, 3, 10, 30."""
    if best not in {rates[0], rates[-1]}:
        return None
    power = floor(log10(best) + 1e-9)
    ones = round(best / 10.0**power) == 1
    if best == rates[-1]:
        return float(f"3e{power}") if ones else float(f"1e{power + 1}")
    return float(f"3e{power - 1}") if ones else float(f"1e{power}")
