"""Which layers of files are to be fitted, where their changes are, and what is wrong with others.

- `change_plan`: `ChangePlan`, which the others fill
- `pair`: of a tuned checkpoint and its base
- `orientation`: which of their weights are stored as inputs by outputs
- `delta`: of changes that stand in files
- `lora`: of a LoRA adapter in the layout of PEFT
"""

from structmat._layer_fits.plans.change_plan import ChangePlan
from structmat._layer_fits.plans.delta import plan_delta
from structmat._layer_fits.plans.lora import plan_lora
from structmat._layer_fits.plans.pair import plan_pair

__all__ = ["ChangePlan", "plan_delta", "plan_lora", "plan_pair"]
