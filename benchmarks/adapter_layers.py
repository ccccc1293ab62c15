"""Claim: a CDD layer keeps no bytes for the backward pass; the time that it adds is that of LoRA, or more.

All times are the processor's, of one thread, which a busy machine disturbs least; all methods take turns in one
process, and medians are compared. "time" has the milliseconds added to the forward and backward pass of the frozen
layer alone, the gradient of its input included. LoRA (r = 8), AdaLoRA (rank 12, on the way to 8), C3A (block the
greatest common divisor of the sides) and FourierFT (1,000 coefficients) are those of PEFT. PEFT's C3A computes a wrong
gradient of its input (checked with 0.21.2); its time and memory are those of the wrong one.

Kept bytes are the storages that autograd saves, but for parameters, the layer's input and what the frozen layer keeps.
Peak memory is that of one training step (AdamW) of 12 layers with a ReLU behind each, above the model, its inputs and
what libraries allocate once: the greatest sum of the blocks that torch's allocator has given out during the step, as
its profiler records them, temporaries within an operation included. It is the same on every run. Work space that MKL
and oneDNN take from the system themselves is not in it. The second table has the same for an encoder of the size of
MiniLM, with adapters of query and value, 32 sequences of 32 tokens and AdamW; the peak of its process, which Linux
records, has the work space in it.

"breakdown" says what the added time of D C D in half precision is made of: six transforms of all rows, seven casts to
float32 and two back; the rest are products and sums of entries, calls and memory. Beside it stands the dense way: the
weight plus the change in both passes, rounded; one more product, of the gradient and the inputs; and its sums along
diagonals. In float32 outputs of as many rows as a side come from the weight plus the change, without transforms.

"convolutions" has the milliseconds added to the passes of frozen convolutions, with LoRA (r = 8) of PEFT and with
`CDDConv`, and the share of the two whole passes; inputs are stored as usual, or with the channels last.

"steps" trains BERTs with random weights: 32 sequences of 16 tokens, forward, backward and AdamW. They have 384 features
and six layers, as MiniLM has, or fewer layers of 768 and 2,048 features. With --dtype bfloat16 there are two: under
autocast, and with all weights of the base in bfloat16. The table has the median milliseconds of a step with LoRA
(r = 8) and with D C D on the same layers, and the median of the ratios.

"places" has the same step of two blocks of 768 features, by the layers that are adapted, all of them in turns; beside
the times are the numbers that are trained and the size of their file.

"experts" has eight experts of the size of OLMoE's, 2,048 features with 1,024 inner ones, whose matrices are two stacked
parameters; two experts for each token, routed at random. LoRA (r = 8) is PEFT's with `target_parameters`. The table
has milliseconds added to the frozen experts' forward and backward pass, the gradient of the input included, kept bytes,
and the peak of a step as above; each in the loop over experts and in the grouped and batched products of transformers.
Less than 0 means a step faster than that of the frozen experts: the batched product copies a matrix for each token,
which that of changed experts does not. CDD takes at most LoRA's time and memory here; experts of 256 features and
fewer, where the cost of calls counts, can take longer.

"bank" has encoders with random weights and a batch in which every row has an adapter of its own. "bank" enters
`AdapterBank.use` for each pass; "decoding" is one of many passes with the same rows inside of one block, as in
`generate`. "adapter_names" is that of `structmat.peft`, "loop" what it was before: a loop over adapters, each of which
copies all outputs. LoRA (r = 8) is computed by PEFT's `adapter_names`, by two batched products of gathered matrices,
and in a loop over rows. "one" has one D C D adapter for all rows; the throughput of the bank is in percent of its.
Less than 0 added is noise. With 16 and 32 tokens in a row, LoRA's batched products are faster than transforms.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import accumulate
from math import gcd
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import _one_thread  # noqa: F401
import peft
import torch
from _common import begin, finish, in_turns, parser, ratio, shown, table
from _many_adapters import bank_part
from safetensors.torch import save
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertModel, MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

import structmat as sm
from structmat.peft import CDDConfig
from structmat.torch import CDDConv, CDDExperts, CDDLinear
from structmat.torch._changes.dense import dense_gradients, weight_plus_change
from structmat.torch._changes.rows import Working

SHAPES = ((768, 768), (1024, 1024), (2048, 2048), (768, 3072), (3072, 768), (4096, 4096))
LAYERS = 12  # of the model whose memory is measured
STEPS = {384: 6, 768: 2, 2048: 1}
"""Numbers of layers of the encoders whose steps are timed, by their numbers of features."""
PRECISIONS = {"float32": ["float32"], "bfloat16": ["autocast to bfloat16", "bfloat16"]}
EXPERTS = 8
IMAGES = (  # channels, side, samples
    *((32, 32, 8), (64, 32, 8), (32, 32, 1), (64, 32, 1)),
    *((128, 16, 8), (320, 16, 4), (640, 16, 2), (1280, 8, 2)),
)
TARGETS = {"all linear": ["query", "key", "value", "dense"], "query and value": ["query", "value"]}
PLACES = {
    "query and value": ["query", "value"],
    "first feed-forward": ["intermediate.dense"],
    "all linear": ["query", "key", "value", "dense"],
}
"""The layers to choose from, whose matrices have n x n, 4 n x n and, in the last place, n x 4 n entries too."""


class PlainAutograd(nn.Module):
    """The same change as `CDDLinear`, by the operator's own product, differentiated by torch."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.inner = CDDLinear.from_linear(base, init="normal")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factors = self.inner.adapter.factors
        return self.inner.base(x) + sm.CDDProduct.from_vectors(*factors, block=True).matvec(x)


def by_peft(config: type[peft.PeftConfig], base: nn.Linear, **options: object) -> nn.Module:
    own = {key: value(base) if callable(value) else value for key, value in options.items()}
    settings = config(target_modules=["0"], **own)
    return peft.get_peft_model(nn.Sequential(base), settings, autocast_adapter_dtype=False).base_model.model[0]


METHODS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "frozen": lambda base: base,
    "LoRA r = 8": partial(by_peft, peft.LoraConfig, r=8, init_lora_weights=False),
    "AdaLoRA": partial(by_peft, peft.AdaLoraConfig, init_r=12, target_r=8, total_step=1000, init_lora_weights=False),
    "structmat, recompute": lambda base: CDDLinear.from_linear(base, init="normal"),
    "D C D, plain autograd": PlainAutograd,
    "C3A": partial(by_peft, peft.C3AConfig, block_size=lambda base: gcd(base.in_features, base.out_features)),
    "FourierFT": partial(by_peft, peft.FourierFTConfig, n_frequency=1000),
}


def frozen(rows: int, cols: int, dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(cols, rows, dtype=dtype).requires_grad_(requires_grad=False)


def layers(shape: tuple[int, int], dtype: torch.dtype) -> Iterator[tuple[str, nn.Module]]:
    for method, wrap in METHODS.items():
        if dtype == torch.bfloat16 and method == "FourierFT":
            continue  # its dense transform has no bfloat16 on a CPU
        yield method, wrap(frozen(*shape, dtype)).to(dtype)


def step(layer: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> None:
    x.grad = None
    layer.zero_grad()
    layer(x).backward(dy)


def added(shape: tuple[int, int], options: argparse.Namespace) -> list[str]:
    """Return the median milliseconds of a frozen layer's forward and backward pass, and what adapters add to them."""
    (rows, cols), dtype = shape, getattr(torch, options.dtype)
    x = torch.randn(options.tokens, cols, dtype=dtype, requires_grad=True)
    dy = torch.randn(options.tokens, rows, dtype=dtype)
    steps = {method: partial(step, layer, x, dy) for method, layer in layers(shape, dtype)}
    seen = in_turns(steps, options.repeats, sample=0.0, limit=15.0)
    found = {method: 1e3 * median(values) for method, values in seen.items()}
    base = found.pop("frozen")
    cells = [f"{found[m] - base:.1f}" if m in found else "-" for m in METHODS if m != "frozen"]
    share = (found["structmat, recompute"] - base) / (found["LoRA r = 8"] - base)
    return [f"{rows} x {cols}", f"{base:.1f}", *cells, f"{share:.2f}"]


def kept_bytes(layer: nn.Module, *inputs: torch.Tensor) -> int:
    """Return the bytes of the storages that autograd saves, but for those of the layer and of its inputs."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*inputs, *layer.parameters(), *layer.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(*inputs)  # while it is held, no storage takes the place of another
    del y
    return sum(found.values())


def peak_memory(wrap: Callable[[nn.Linear], nn.Module], tokens: int, side: int, dtype: torch.dtype) -> float:
    """Return the MiB that one training step of 12 layers takes at most."""
    model = nn.Sequential(*(m for _ in range(LAYERS) for m in (wrap(frozen(side, side, dtype)), nn.ReLU()))).to(dtype)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters) if parameters else None
    x = torch.randn(tokens, side, dtype=dtype, requires_grad=True)
    model(x[:2]).sum().backward()  # what libraries allocate once
    model.zero_grad()
    x.grad = None

    def train() -> None:
        model(x).square().mean().backward()
        if optimizer:
            optimizer.step()

    return peak_of(train)


def peak_of(function: Callable[[], object]) -> float:
    """Return the MiB that a function takes at most, above what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function()
    recorded: Any = seen.profiler
    events, blocks = list(recorded.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":  # freed blocks have a negative size
            blocks.append((event.start_time_ns, event.extra_fields.alloc_size))
    return max(accumulate(size for _, size in sorted(blocks, key=lambda block: block[0]))) / 2**20


def time_part(options: argparse.Namespace) -> str:
    lines = shown(added(shape, options) for shape in options.shapes)
    return table(["layer", "frozen", *(f"+ {m}" for m in METHODS if m != "frozen"), "recompute / LoRA"], lines)


def one_by_one(function: Callable[[torch.Tensor], torch.Tensor], tensors: Sequence[torch.Tensor]) -> None:
    """Call a function of each tensor, whose result is freed before the next call."""
    for tensor in tensors:
        function(tensor)


def breakdown_row(side: int, options: argparse.Namespace) -> list[str]:
    """Return the milliseconds that D C D adds to a frozen layer, and those of the operations that it is made of."""
    dtype = getattr(torch, options.dtype)
    names = ("frozen", "LoRA r = 8", "structmat, recompute")
    base, lora, changed = (METHODS[name](frozen(side, side, dtype)).to(dtype) for name in names)
    x = torch.randn(options.tokens, side, dtype=dtype, requires_grad=True)
    rows, dy = x.detach(), torch.randn(options.tokens, side, dtype=dtype)
    vectors = [vector.detach() for vector in changed.adapter.vectors]
    at_once = Working.of(vectors, 1.0, rows, dy).chunk
    chunks, wide_chunks = rows.split(at_once), rows.float().split(at_once)
    weight = base.weight.float()
    steps = {
        "frozen": partial(step, base, x, dy),
        "LoRA": partial(step, lora, x, dy),
        "CDD": partial(step, changed, x, dy),
        "transforms": partial(one_by_one, lambda wide: torch.fft.irfft(torch.fft.rfft(wide), n=side), wide_chunks * 3),
        "casts to float32": partial(one_by_one, torch.Tensor.float, chunks * 7),
        "casts back": partial(one_by_one, lambda wide: wide.to(dtype), wide_chunks * 2),
        "sums": partial(one_by_one, lambda wide: weight_plus_change(wide, vectors, 1.0).to(dtype), (weight, weight)),
        "product": partial(torch.mm, dy.T, rows),
        "diagonals": partial(dense_gradients, torch.randn(side, side), vectors, 1.0),
    }
    seen = in_turns(steps, options.breakdowns, sample=0.0, limit=15.0)
    ms = {name: 1e3 * median(values) for name, values in seen.items()}
    added = {name: ms[name] - ms["frozen"] for name in ("LoRA", "CDD")}
    transforms, casts = ms["transforms"], ms["casts to float32"] + ms["casts back"]
    parts = [transforms, casts, added["CDD"] - transforms - casts, ms["sums"], ms["product"], ms["diagonals"]]
    times = (f"{each:.1f}" for each in (ms["frozen"], *added.values(), *parts))
    return [f"{side} x {side}", *times, f"{added['CDD'] / added['LoRA']:.2f}"]


def breakdown_part(options: argparse.Namespace) -> str:
    lines = shown(breakdown_row(side, options) for side in options.sides)
    parts = ["transforms", "casts", "rest", "dense: sums", "product", "diagonals"]
    return table(["layer", "frozen", "+ LoRA r = 8", "+ D C D", *parts, "D C D / LoRA"], lines)


def memory_part(options: argparse.Namespace) -> str:
    return "\n\n".join([*(layer_memory(tokens, options) for tokens in options.kept_tokens), encoder_memory(options)])


def layer_memory(tokens: int, options: argparse.Namespace) -> str:
    dtype, side = getattr(torch, options.dtype), options.side
    built = dict(layers((side, side), dtype))
    x = torch.randn(tokens, side, dtype=dtype, requires_grad=True)
    floor = kept_bytes(built["frozen"], x)
    peaks = {method: peak_memory(METHODS[method], tokens, side, dtype) for method in built}
    rows = []
    for method, layer in built.items():
        held = (kept_bytes(layer, x) - floor) / 1024
        above = (peaks[method] - peaks["frozen"]) * 1024
        rows.append([method, f"{held:,.0f}", f"{peaks[method]:.2f}", f"{above:,.0f}"])
    head = ["method", "kept by one layer, KiB", "peak of a 12-layer step, MiB", "of it above the frozen layers, KiB"]
    return f"{tokens} tokens, {options.dtype}, layers of {side} x {side}:\n\n{table(head, rows)}"


def encoder_memory(options: argparse.Namespace) -> str:
    """Return the memory of a training step of a whole encoder, each method in a process of its own."""
    rows = []
    for method in ENCODER_METHODS:
        with ProcessPoolExecutor(1, get_context("spawn")) as one:
            weights, peak, process = one.submit(memory_of_encoder, method, options.encoder).result()
        rows.append([method, f"{weights:.1f}", f"{peak:.1f}", f"{process:.0f}"])
    head = ["method", "weights, MiB", "peak of a step above these, MiB", "peak of the process above its start, MiB"]
    features, count, *_ = options.encoder
    return f"An encoder of {features} features and {count} blocks, float32:\n\n{table(head, rows)}"


ENCODER_METHODS: dict[str, Callable[[list[str]], peft.PeftConfig]] = {
    "LoRA r = 8": lambda targets: peft.LoraConfig(r=8, target_modules=targets),
    "structmat": lambda targets: CDDConfig(target_modules=targets),
    "FourierFT": lambda targets: peft.FourierFTConfig(n_frequency=1000, target_modules=targets),
}


def memory_of_encoder(method: str, size: tuple[int, int, int, int]) -> tuple[float, float, float]:
    """Return the MiB of the weights, of a step above them, and of this process above what it has taken before."""
    torch.set_num_threads(1)
    features, count, words, length = size
    begun = kibibytes("VmRSS")
    torch.manual_seed(0)
    config = ENCODER_METHODS[method](TARGETS["query and value"])
    model = peft.get_peft_model(encoder(features, count, words), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    train = partial(encoder_step, model, optimizer, torch.randint(0, words, (32, length)), autocast=False)
    for _ in range(3):
        train()
    process = (kibibytes("VmHWM") - begun) / 1024
    return sum(p.nbytes for p in model.parameters()) / 2**20, peak_of(train), process


def kibibytes(field: str) -> int:
    """Return what Linux records of this process: its memory now (VmRSS), or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def encoder(features: int, count: int, words: int) -> BertModel:
    """Return a BERT with random weights."""
    size = {"hidden_size": features, "intermediate_size": 4 * features, "num_hidden_layers": count}
    config = BertConfig(**size, vocab_size=words, num_attention_heads=features // 32)
    return BertModel(config, add_pooling_layer=False)


def encoder_step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor, autocast: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = model(ids).last_hidden_state
    hidden.float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def places_part(options: argparse.Namespace) -> str:
    """Return the table of a step by the layers that are adapted, all in turns."""
    features, count = options.placed
    torch.manual_seed(0)
    base, ids = encoder(features, count, 1000), torch.randint(0, 1000, (32, 16))
    steps, facts = {}, {}
    for place, targets in PLACES.items():
        configs = {"LoRA": peft.LoraConfig(r=8, target_modules=targets), "CDD": CDDConfig(target_modules=targets)}
        for method, config in configs.items():
            model = peft.get_peft_model(copy.deepcopy(base), config)
            trained = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=1e-4)
            steps[method, place] = partial(encoder_step, model, optimizer, ids, options.dtype == "bfloat16")
            file = len(save(peft.get_peft_model_state_dict(model)))
            facts[method, place] = f"{sum(p.numel() for p in trained):,} ({file / 1e3:.0f} kB)"
    seen = in_turns(steps, options.places_repeats, sample=0.0, limit=60.0)
    first = "CDD", next(iter(PLACES))
    lines = []
    for place in PLACES:
        ours, lora = ("CDD", place), ("LoRA", place)
        times = [f"{1e3 * median(seen[each]):.0f}" for each in (ours, lora)]
        ratios = [f"{ratio(seen, ours, other):.2f}" for other in (lora, first)]
        lines.append([place, facts[ours], facts[lora], *times, *ratios])
    head = ["adapted layers", "D C D: numbers (file)", "LoRA r = 8", "D C D, ms", "LoRA, ms", "D C D / LoRA"]
    text = table([*head, f"D C D / D C D on {first[1]}"], lines)
    precision = "autocast to bfloat16" if options.dtype == "bfloat16" else "float32"
    return f"A training step of an encoder of {features} features and {count} blocks, {precision}:\n\n{text}"


def encoder_ratios(features: int, count: int, precision: str, options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield, for each choice of layers, the times of a step with LoRA and D C D, and their ratio."""
    torch.manual_seed(0)
    base = encoder(features, count, 1000)
    base.to(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    ids = torch.randint(0, 1000, (32, 16))
    for name, targets in TARGETS.items():
        configs = {"LoRA": peft.LoraConfig(r=8, target_modules=targets), "CDD": CDDConfig(target_modules=targets)}
        steps = {}
        for method, config in configs.items():
            model = peft.get_peft_model(copy.deepcopy(base), config)
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
            steps[method] = partial(encoder_step, model, optimizer, ids, precision.startswith("autocast"))
        seen = in_turns(steps, options.repeats, sample=0.0, limit=30.0)
        times = [f"{1e3 * median(values):.0f}" for values in seen.values()]
        yield [str(features), str(count), precision, name, *times, f"{ratio(seen, 'CDD', 'LoRA'):.2f}"]


def steps_part(options: argparse.Namespace) -> str:
    sizes = {32: 1} if options.quick else STEPS
    rows = shown(
        row
        for features, count in sizes.items()
        for precision in PRECISIONS[options.dtype]
        for row in encoder_ratios(features, count, precision, options)
    )
    head = ["features", "blocks", "precision", "adapted layers", "LoRA r = 8, ms", "D C D, ms", "D C D / LoRA"]
    return f"A training step of an encoder:\n\n{table(head, rows, left=4)}"


def experts_of(options: argparse.Namespace, loop: str) -> dict[str, nn.Module]:
    """Return the frozen experts of a block, and the same with adapters."""
    torch.manual_seed(0)
    config = MixtralConfig(hidden_size=options.hidden, intermediate_size=options.inner, num_local_experts=EXPERTS)
    config._experts_implementation = loop
    base = MixtralExperts(config)
    for parameter in base.parameters():
        nn.init.normal_(parameter, std=0.02)
    base = base.to(getattr(torch, options.dtype)).requires_grad_(requires_grad=False)
    names = ["gate_up_proj", "down_proj"]
    lora = peft.LoraConfig(
        r=8, target_modules=[], target_parameters=[f"experts.{name}" for name in names], init_lora_weights=False
    )
    inner = nn.ModuleDict({"experts": copy.deepcopy(base)})
    by_lora = peft.get_peft_model(inner, lora, autocast_adapter_dtype=False).base_model.model["experts"]
    return {"frozen": base, "LoRA": by_lora, "CDD": CDDExperts(copy.deepcopy(base), names, init="normal")}


def routed_step(experts: nn.Module, x: torch.Tensor, *routes: torch.Tensor) -> None:
    x.grad = None
    experts.zero_grad()
    experts(x, *routes).sum().backward()


def experts_row(loop: str, tokens: int, options: argparse.Namespace) -> list[str]:
    """Return the times and the memory of experts with so many tokens, in one of the ways to multiply by them."""
    dtype, built = getattr(torch, options.dtype), experts_of(options, loop)
    x = torch.randn(tokens, options.hidden, dtype=dtype, requires_grad=True)
    routes = torch.rand(tokens, EXPERTS).topk(2).indices, torch.rand(tokens, 2, dtype=dtype)
    steps = {method: partial(routed_step, module, x, *routes) for method, module in built.items()}
    for each in steps.values():
        each()  # what libraries allocate once
    peaks = {method: peak_of(each) for method, each in steps.items()}
    kept = {method: kept_bytes(module, x, *routes) / 2**20 for method, module in built.items()}
    seen = in_turns(steps, options.turns, sample=0.0, limit=30.0)
    ms = {method: 1e3 * median(values) for method, values in seen.items()}
    added = {method: ms[method] - ms["frozen"] for method in ("LoRA", "CDD")}
    share = f"{added['CDD'] / added['LoRA']:.2f}" if added["CDD"] > 0 else "< 0"
    times = [f"{ms['frozen']:.1f}", *(f"{each:+.1f}" for each in added.values()), share]
    memory = [" / ".join(f"{each[method]:.1f}" for method in built) for each in (kept, peaks)]
    return [loop, str(tokens), *times, *memory]


def experts_part(options: argparse.Namespace) -> str:
    few, *_ = options.routed
    cases = [("eager", n) for n in options.routed] + [("grouped_mm", n) for n in options.routed]
    cases.append(("batched_mm", few // 8))  # it copies a matrix for each token
    rows = shown(experts_row(loop, tokens, options) for loop, tokens in cases)
    head = ["loop", "tokens", "frozen, ms", "+ LoRA", "+ CDD", "CDD / LoRA", "kept, MiB", "peak, MiB"]
    where = f"{EXPERTS} experts, {options.hidden} features and {options.inner} inner ones, {options.dtype}"
    return f"{where}; memory of frozen experts / LoRA / CDD:\n\n{table(head, rows)}"


def convolution_row(options: argparse.Namespace, image: tuple[int, int, int], kernel: int, last: bool) -> list[str]:
    """Return what adapters add to the passes of a convolution of as many input as output channels."""
    (channels, side, samples), dtype = image, getattr(torch, options.dtype)
    layout = torch.channels_last if last else torch.contiguous_format
    base = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, dtype=dtype).to(memory_format=layout)
    base.requires_grad_(requires_grad=False)
    made = {
        "frozen": base,
        "LoRA": by_peft(peft.LoraConfig, copy.deepcopy(base), r=8, init_lora_weights=False).to(memory_format=layout),
        "CDDConv": CDDConv(copy.deepcopy(base), init="normal"),
    }
    x = torch.randn(samples, channels, side, side, dtype=dtype).to(memory_format=layout).requires_grad_()
    dy = torch.randn_like(base(x))
    steps = {name: partial(step, layer, x, dy) for name, layer in made.items()}
    seen = in_turns(steps, options.repeats, sample=0.0, limit=15.0)
    found = {name: 1e3 * median(values) for name, values in seen.items()}
    added = [f"{found[name] - found['frozen']:.1f}" for name in ("LoRA", "CDDConv")]
    name = f"{channels} channels, {kernel} x {kernel}, {samples} of {side} x {side}{', channels last' * last}"
    return [name, f"{found['frozen']:.1f}", *added, f"{ratio(seen, 'CDDConv', 'LoRA'):.2f}"]


def convolutions_part(options: argparse.Namespace) -> str:
    cases = ((image, kernel) for image in options.images for kernel in (3, 1))
    lines = shown(convolution_row(options, *case, last) for case in cases for last in (False, True))
    return table(["convolution", "frozen", "+ LoRA r = 8", "+ CDDConv", "CDDConv / LoRA, whole passes"], lines)


PARTS = {
    "time": time_part,
    "breakdown": breakdown_part,
    "memory": memory_part,
    "convolutions": convolutions_part,
    "steps": steps_part,
    "places": places_part,
    "experts": experts_part,
    "bank": bank_part,
}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", choices=PARTS)
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = begin(made)
    options.shapes, options.tokens, options.side, options.repeats, options.turns = SHAPES, 1024, 1024, 9, 5
    options.hidden, options.inner, options.routed = 2048, 1024, (64, 1024)
    options.sides, options.breakdowns = (768, 1024, 2048), 25
    options.placed, options.places_repeats = (768, 2), 25
    options.images = IMAGES
    options.kept_tokens, options.encoder = (1024, 64), (384, 6, 30_522, 32)
    if options.quick:
        options.images = ((8, 2, 1),)
        options.hidden, options.inner, options.routed = 64, 32, (16,)
        options.kept_tokens, options.encoder = (4,), (32, 1, 100, 4)
        options.shapes, options.tokens, options.side, options.repeats = ((64, 64),), 4, 64, 3
        options.sides, options.breakdowns = (64,), 3
        options.placed, options.places_repeats = (32, 1), 3
    torch.set_num_threads(1)
    for name in [options.only] if options.only else PARTS:
        title, part = f"{name.capitalize()}, {options.dtype}", PARTS[name](options)
        finish(options.out, "adapter_costs", title, part, packages=("structmat", "torch", "peft", "transformers"))


if __name__ == "__main__":
    main()
