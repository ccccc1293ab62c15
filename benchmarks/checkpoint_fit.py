"""Memory, recovery and speed-up of `structmat fit-checkpoint` on synthetic checkpoints.

    python benchmarks/checkpoint_fit.py memory [--gib 2] [--side 4096] [--tuned 8] [--dtypes float16 bfloat16 float32]
    python benchmarks/checkpoint_fit.py speed [--side 2048] [--layers 24]
    python benchmarks/checkpoint_fit.py --quick

Base weights are normal; a planted product D C D of the same norm is added to the tuned ones. Memory is the peak of the
resident set of one worker: when it starts, when all layers are done, when the tables are written; the difference of the
first two is told in layers. Recovery is the relative difference of the fitted products from the planted ones. Every run
is in a process of its own. The test of speed has normal changes, whose fits take longest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save

from structmat._layer_fits import factor_scales
from structmat.studies import load_study

SHARD_BYTES = 1 << 29
RUN = """
import json, sys
from structmat.studies import fit_checkpoint

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

def hear(state):
    peaks.append(peak())

peaks, folder = [], sys.argv[1]
fit_checkpoint(f"{folder}/out", base=f"{folder}/base", tuned=f"{folder}/tuned", callback=hear)
print(json.dumps([peaks[0], peaks[-1], peak()]))
"""


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Round to a dtype of a checkpoint."""
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def planted(layer: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([1, layer])
    return rng.uniform(0.5, 1.5, n), rng.standard_normal(n), rng.uniform(0.5, 1.5, n)


def dense(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> np.ndarray:
    n = len(c)
    out = np.empty((n, n), "float32")
    for i in range(n):
        out[i] = a[i] * c[(i - np.arange(n)) % n] * b
    return out


def make(folder: Path, layers: int, n: int, dtype: str, tuned_layers: int, *, noise: bool = False) -> int:
    """Write a base and a tuned checkpoint in shards, of which the first layers differ; return the bytes of one."""
    per_shard = max(1, SHARD_BYTES // (n * n * (4 if dtype == "float32" else 2)))
    maps: dict[str, dict[str, str]] = {"base": {}, "tuned": {}}
    total = 0
    for start in range(0, layers, per_shard):
        name = f"model-{start // per_shard + 1:05}.safetensors"
        shards: dict[str, dict[str, np.ndarray]] = {"base": {}, "tuned": {}}
        for layer in range(start, min(start + per_shard, layers)):
            key = f"model.layers.{layer}.proj.weight"
            base = stored(np.random.default_rng([0, layer]).standard_normal((n, n), dtype="float32"), dtype)
            shards["base"][key] = shards["tuned"][key] = base
            if layer < tuned_layers:
                rng = np.random.default_rng([2, layer])
                change = rng.standard_normal((n, n), dtype="float32") if noise else dense(*planted(layer, n))
                shards["tuned"][key] = stored(base.astype("float32") + change, dtype)
            for names in maps.values():
                names[key] = name
        for side, tensors in shards.items():
            (folder / side).mkdir(parents=True, exist_ok=True)
            content = save(tensors, {"format": "pt"})
            (folder / side / name).write_bytes(content)
            total += len(content) if side == "base" else 0
    for side, names in maps.items():
        index = {"metadata": {"total_size": total}, "weight_map": names}
        (folder / side / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def peaks(folder: Path) -> tuple[float, float, float]:
    """Fit by one worker; return the peak of its resident set in MiB: at the start, after the last layer, at the end."""
    command = [sys.executable, "-c", RUN, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    start, layers, end = (kilobytes / 1024 for kilobytes in json.loads(done.stdout))
    return start, layers, end


def seconds(folder: Path, out: str, workers: int) -> float:
    """Run the command."""
    sources = ["--base", str(folder / "base"), "--tuned", str(folder / "tuned"), "--out", str(folder / out)]
    command = [sys.executable, "-m", "structmat", "fit-checkpoint", *sources, "--workers", str(workers), "--json"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - start


def recovery(folder: Path, layers: int, n: int) -> tuple[float, float]:
    """Return the largest differences: of fitted from planted products, and of fitted products from the changes."""
    adapter = load_file(folder / "out" / "adapter_model.safetensors")
    worst = 0.0
    for layer in range(layers):
        keys = [f"base_model.model.model.layers.{layer}.proj.cdd_adapters.vectors.{i}" for i in range(3)]
        scales = factor_scales(adapter[key].shape for key in keys)
        a, c, b = (scale * adapter[key].ravel() for key, scale in zip(keys, scales, strict=True))
        want = dense(*planted(layer, n))
        worst = max(worst, float(np.linalg.norm(dense(a, c, b) - want) / np.linalg.norm(want)))
    return worst, max(row["error"] for row in load_study(folder / "out").rows if row["method"] == "cdd")


def memory(gib: float, n: int, dtypes: list[str], tuned_layers: int) -> None:
    print("| dtype | checkpoint | layers | s | start | all layers | end | layers in float32 | in the file's dtype |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    lines = []
    for dtype in dtypes:
        folder = Path(tempfile.mkdtemp(prefix="checkpoint_fit"))
        try:
            item = 4 if dtype == "float32" else 2
            layers = round(gib * 2**30 / (n * n * item))
            tuned_layers = min(tuned_layers, layers)
            size = make(folder, layers, n, dtype, tuned_layers)
            begun = time.perf_counter()
            start, most, end = peaks(folder)
            took = time.perf_counter() - begun
            ratios = [f"{(most - start) * 2**20 / (n * n * width):.2f}" for width in (4, item)]
            cells = (f"{size / 2**30:.2f} GiB", f"{layers} of {n} x {n}, {tuned_layers} tuned", f"{took:.0f}")
            memories = [f"{mib:.0f} MiB" for mib in (start, most, end)]
            print(f"| {' | '.join([dtype, *cells, *memories, *ratios])} |", flush=True)
            lines.append((dtype, *recovery(folder, tuned_layers, n)))
        finally:
            shutil.rmtree(folder)
    print("\n| dtype | fitted from planted product, worst layer | fitted product from the change in the files |")
    print("|---|---:|---:|")
    for dtype, worst, error in lines:
        print(f"| {dtype} | {worst:.1e} | {error:.1e} |")


def speed(n: int, layers: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, layers, n, "float32", layers, noise=True)
        times: dict[int, list[float]] = {1: [], 2: []}
        for k in range(rounds):
            for workers, found in times.items():
                found.append(seconds(folder, f"out-{k}-{workers}", workers))
                print(f"{workers} worker{'s' * (workers > 1)}: {found[-1]:.1f} s", flush=True)
        outputs = [folder / f"out-0-{workers}" for workers in times]
        same = all((outputs[0] / file.name).read_bytes() == file.read_bytes() for file in outputs[1].glob("adapter*"))
        one, two = (float(np.median(found)) for found in times.values())
        print(f"{layers} layers of {n} x {n}: {one:.1f} s and {two:.1f} s, {one / two:.2f} times; same files: {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "speed", "both"], nargs="?", default="both")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--side", type=int)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--tuned", type=int, default=8, help="layers that change, in the test of memory")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtypes", nargs="*", default=["float16", "bfloat16", "float32"])
    options = parser.parse_args()
    if options.quick:
        options.gib, options.side, options.layers, options.tuned = 2.0**-12, 64, 4, 1
    if options.what != "speed":
        memory(options.gib, options.side or 4096, options.dtypes, options.tuned)
    if options.what != "memory":
        speed(options.side or 2048, options.layers, options.rounds)


if __name__ == "__main__":
    main()
