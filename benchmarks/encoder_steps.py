"""Claim: a training step of a small encoder takes about as long with CDD as with LoRA (r = 8), within a fifth.

    python benchmarks/encoder_steps.py [--repeats 11] [--length 16] [--autocast] [--quick] [--out FOLDER]

A BERT of 384 features and six layers, with random weights; 32 sequences of 16 tokens, forward, backward and AdamW, in
float32 or under autocast to bfloat16. CPU time of one thread, all taking turns. The table has milliseconds, and the
median of the ratios to LoRA on the same layers.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import finish, in_turns, machine, one_thread, parser, ratio, table

one_thread()

import copy
from collections.abc import Callable
from statistics import median

import peft
import torch
from torch import nn
from transformers import BertConfig, BertModel

from structmat.peft import CDDConfig

TARGETS = {"all linear": ["query", "key", "value", "dense"], "query and value": ["query", "value"]}


def step(model: nn.Module, ids: torch.Tensor, autocast: bool) -> Callable[[], None]:
    """Return a function that trains once."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            hidden = model(ids).last_hidden_state
        hidden.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    """Measure, and write a table."""
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=11)
    made.add_argument("--length", type=int, default=16, help="tokens of a sequence")
    made.add_argument("--autocast", action="store_true", help="multiply matrices in bfloat16")
    options = made.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12}
    if options.quick:
        options.repeats, size = 3, {key: value // 6 for key, value in size.items()}
    base = BertModel(BertConfig(**size), add_pooling_layer=False)
    ids = torch.randint(0, 30_000, (32, options.length))
    steps = {"full": step(copy.deepcopy(base), ids, options.autocast)}
    for name, targets in TARGETS.items():
        lora = peft.LoraConfig(r=8, target_modules=targets)
        steps[f"LoRA, {name}"] = step(peft.get_peft_model(copy.deepcopy(base), lora), ids, options.autocast)
        cdd = CDDConfig(target_modules=targets)
        steps[f"CDD, {name}"] = step(peft.get_peft_model(copy.deepcopy(base), cdd), ids, options.autocast)
    times = in_turns(steps, options.repeats, sample=0.0, limit=60.0)
    rows = [[name, f"{1e3 * median(values):.1f}"] for name, values in times.items()]
    rows += [[f"CDD / LoRA, {name}", f"{ratio(times, f'CDD, {name}', f'LoRA, {name}'):.2f}"] for name in TARGETS]
    where = machine("structmat", "torch", "peft", "transformers")
    finish(options.out, "encoder_steps", f"# A training step\n\n{where}\n\n{table(['', 'ms, or ratio'], rows)}")


if __name__ == "__main__":
    main()
