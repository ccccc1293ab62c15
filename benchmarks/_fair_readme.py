"""What README says of `fair_adapters.py`: D C D beside the LoRA of the nearest size on the same layers."""

from __future__ import annotations

from _common import table
from _fair_results import LABELS, Result, averaged, minus, nearest_lora, pick

LAYERS = {"query-value": "query and value", "intermediate": "first feed-forward layers", "all-linear": "all linear"}


def readme_table(found: list[Result]) -> str:
    """Return the mean accuracies of all tasks at equal place and size."""
    means, lines = averaged(found), []
    for places, name in LAYERS.items():
        for cdd in pick(means, places=places, method="cdd", size=3):
            lora = nearest_lora(cdd, means)
            if lora is not None:
                label = LABELS["lora"].format(lora.case.size)
                cells = (f"{cdd.mean:.1f} ({cdd.parameters:,})", f"{lora.mean:.1f} ({lora.parameters:,}, {label})")
                lines.append([name, *cells, str(minus(cdd, lora))])
    head = ("adapted layers", "D C D (parameters)", "LoRA of the nearest size", "difference")
    return table(head, lines)
