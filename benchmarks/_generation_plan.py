"""What `generation.py` runs: the methods and their sizes, their rates, and the rows."""

from dataclasses import replace

from _fair_plan import RATES as OF_ENCODERS
from _fair_plan import Case, Protocol

USUAL = Protocol(
    rows=1600, epochs=1, batch=16, held_back=200, test_rows=500, trial_seeds=(100,), final_seeds=(0, 1, 2, 3, 4),
    metric="exact",
)  # fmt: skip

PROTOCOLS = {"dates": USUAL, "dates-half": replace(USUAL, rows=800)}
"""With half of the dates, and of the steps, methods may differ that are equal with all."""

SIZED = (
    ("decoder", "lora", 8),
    ("decoder", "cdd", 3),
    ("decoder", "lora", 1),
    ("decoder", "lora", 2),
    ("decoder-ia3", "ia3", None),
    ("decoder", "c3a-corrected", 48),
)
"""Places, methods and sizes. C3A's blocks are those with which its number of parameters is nearest to that of D C D."""

CASES = tuple(Case(task, *sized) for task in PROTOCOLS for sized in SIZED)

RATES = OF_ENCODERS | {"ia3": (0.03, 0.1, 0.3, 1.0)}
"""The four rates of each method, those of the study of encoders for all but IA3, which gets no date right that is held
back with 0.003, 0.01, 0.03 or 0.1."""
