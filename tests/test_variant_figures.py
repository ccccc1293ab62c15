"""What the guide says of variants of the adapter is what `benchmarks/results/adapter_variants.csv` has."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest

from tests.pages import page, rows

BASELINE = "D C D"
RATES = {"LoRA r = 8": 0.003, "LoRA r = 8, all linear layers": 0.003, "all linear layers": 0.03, "alpha = 0.3": 0.2}
DIGITS = {"accuracy": 1, "cross_entropy": 3}


def rate(variant: str) -> float:
    """The rate at which a variant is compared."""
    return RATES.get(variant, 0.01 if variant.startswith("LoRA") else 0.06)


def runs(task: str, variant: str, measure: str, lr: float | None = None) -> dict[str, float]:
    """The results of every seed."""
    setting = task, variant, lr or rate(variant)
    return {
        row["seed"]: float(row[measure])
        for row in rows("adapter_variants.csv")
        if (row["task"], row["variant"], float(row["lr"])) == setting
    }


def minus(
    task: str, first: str, second: str = BASELINE, measure: str = "accuracy", *, digits: int = 0, seeds: int = 3
) -> str:
    """The difference of two variants over the same seeds, as the page writes it."""
    these, those = runs(task, first, measure), runs(task, second, measure)
    both = [these[seed] - those[seed] for seed in sorted(these.keys() & those.keys())]
    assert len(both) == seeds
    digits = digits or DIGITS[measure]
    error = f" ± {stdev(both) / seeds**0.5:.{digits}f}" if seeds > 1 else ""
    return f"{fmean(both):.{digits}f}{error}"


@pytest.fixture(scope="module")
def guide() -> str:
    return page("docs/guide/fine_tuning.md")


def test_places(guide):
    assert (
        f"is {minus('goemotions', 'intermediate')} points ahead of D C D on query and value on GoEmotions, "
        f"and {minus('sst2', 'intermediate')} on SST-2" in guide
    )
    accuracy = minus("goemotions", BASELINE, "output", digits=2, seeds=1)
    entropy = minus("goemotions", "output", measure="cross_entropy", seeds=1)
    assert f"In `output` it is {accuracy} points behind with one seed, and its entropy {entropy} higher" in guide
    everywhere = minus("goemotions", "all linear layers", digits=2)
    lora = minus("goemotions", "LoRA r = 8, all linear layers")
    assert f"gain {everywhere} points with 69,120 parameters, LoRA of rank 8 there with 331,776 {lora};" in guide
    assert f"the difference, {minus('sst2', 'intermediate', 'LoRA r = 1, intermediate')}, is within" in guide


def test_shared_factors(guide):
    one = "intermediate, shared circulant"
    two = "intermediate, circulant and last diagonal shared"
    assert f"is {minus('goemotions', one)} points ahead of D C D on query and value on GoEmotions" in guide
    behind = minus("sst2", "intermediate", one)
    assert f"but only {minus('sst2', one, digits=2)} on SST-2, where it is {behind} behind D C D" in guide
    entropy = minus("goemotions", BASELINE, two, "cross_entropy")
    assert f"an entropy {entropy} lower, and accuracies {minus('goemotions', two)} ahead" in guide


def test_multiplicative_changes(guide):
    two = "intermediate, W (I + sum of two products)"
    inputs = "inputs of attention and intermediate, W (I + D C D)"
    assert (
        f"are {minus('goemotions', two)} points ahead of D C D on query and value on GoEmotions, "
        f"but {minus('sst2', BASELINE, two)} behind on SST-2" in guide
    )
    assert (
        f"are {minus('goemotions', inputs)} points ahead on GoEmotions and {minus('sst2', BASELINE, inputs)} behind on "
        f"SST-2, with an entropy {minus('sst2', inputs, measure='cross_entropy')} higher" in guide
    )


def test_small_gains(guide):
    circulant = minus("goemotions", "rate of the circulant x 3", digits=2)
    growing = minus("goemotions", "rates x 1.25 from block to block")
    assert f"five factors** are {minus('goemotions', 'five factors')} points ahead with 23,040" in guide
    assert f"three times the rate {circulant}, rates that grow by a quarter from block to block {growing}" in guide
    assert f"three seeds 0.3 is {minus('goemotions', 'alpha = 0.3', digits=2)} points ahead" in guide
    assert f"training without clipping {minus('goemotions', 'no clipping')} points" in guide


def test_single_accuracies(guide):
    first, second, third = runs("goemotions", BASELINE, "accuracy", 0.1).values()
    lora = runs("goemotions", "LoRA r = 8", "accuracy")["2"]
    assert f"accuracies of {first:.2f}, {second:.2f} and {third:.2f} % with three seeds" in guide
    assert f"With the third seed LoRA of rank 8 reaches {lora:.2f} %" in guide
    means = [
        fmean(runs("goemotions", name, measure, lr).values())
        for measure in DIGITS
        for name, lr in (("start from the gradient, head trained before", 0.01), ("head trained before", 0.06))
    ]
    text = "at 0.06: {:.1f} and {:.1f} %, with three seeds each, entropies {:.3f} and {:.3f}"
    assert text.format(*means) in guide
