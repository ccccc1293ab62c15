"""What the pages conclude from `benchmarks/results/fair_adapters.csv`, computed again from its last runs."""

from __future__ import annotations

from math import sqrt
from statistics import fmean, stdev

import pytest

from tests.pages import lines, page, rows

TASKS = ("goemotions", "sst2", "banking77", "cola", "mrpc")
T_OF_FIVE = 2.7764
"""Student's t for an interval of 95 % from five runs."""

Case = tuple[str, str, str]
"""Places, method and size."""

HEAD, LORA_8, LORA_1, CDD = (("query-value", *of) for of in (("head", ""), ("lora", "8"), ("lora", "1"), ("cdd", "3")))
LORA_2, LORA_16, FIVE, SEVEN = (
    ("query-value", *of) for of in (("lora", "2"), ("lora", "16"), ("cdd", "5"), ("cdd", "7"))
)
ONE_C, INTERMEDIATE, LORA_8_THERE, LORA_2_THERE, LORA_1_THERE = (
    ("intermediate", *of) for of in (("cdd-shared", "3"), ("cdd", "3"), ("lora", "8"), ("lora", "2"), ("lora", "1"))
)
EVERYWHERE, ONE_C_EVERYWHERE, LORA_8_EVERYWHERE, LORA_2_EVERYWHERE, LORA_1_EVERYWHERE = (
    ("all-linear", *of) for of in (("cdd", "3"), ("cdd-shared", "3"), ("lora", "8"), ("lora", "2"), ("lora", "1"))
)


@pytest.fixture(scope="module")
def scores() -> dict[tuple[str, Case], list[float]]:
    """In per cent, by task and case, those with five last runs, in the order of the seeds."""
    found: dict[tuple[str, Case], dict[int, float]] = {}
    for row in rows("fair_adapters.csv"):
        if row["stage"] == "final":
            case = row["places"], row["method"], row["size"]
            value = row["matthews" if row["task"] == "cola" else "accuracy"]
            found.setdefault((row["task"], case), {})[int(row["seed"])] = 100 * float(value)
    return {key: [runs[seed] for seed in range(5)] for key, runs in found.items() if len(runs) == 5}


@pytest.fixture(scope="module")
def minus(scores):
    """Mean, standard error and sureness of a difference on one task, or in the mean of all."""

    def difference(task: str, a: Case, b: Case) -> tuple[float, float, bool]:
        tasks = TASKS if task == "mean" else (task,)
        values = [fmean(scores[t, a][seed] - scores[t, b][seed] for t in tasks) for seed in range(5)]
        error = stdev(values) / sqrt(5)
        return fmean(values), error, abs(fmean(values)) > T_OF_FIVE * error

    return difference


@pytest.fixture(scope="module")
def text(minus):
    """Such a difference as pages write it; its sign and whether it is sure are checked."""

    def written(task: str, a: Case, b: Case, *, sure: bool) -> str:
        mean, error, found = minus(task, a, b)
        assert found is sure, (task, a, b)
        return f"{mean:.1f} ± {error:.1f}"

    return written


@pytest.fixture(scope="module")
def measured() -> str:
    return page("docs/measured.md").partition("What the tables say:")[2]


def of_place(scores, task: str, places: str, *methods: str) -> list[Case]:
    return [case for t, case in scores if (t, case[0]) == (task, places) and case[1] in methods]


def test_query_and_value(measured, scores, minus, text):
    assert (
        f"D C D on query and value is {text('mean', LORA_8, CDD, sure=True)} points below LoRA of rank 8, which has "
        "5.3 times as many parameters, and not surely different from LoRA of rank 1, which has a third fewer "
        f"({text('mean', CDD, LORA_1, sure=False)})" in measured
    )
    others = [("query-value", *of) for of in (("c3a-corrected", "128"), ("fourierft", "1152"), ("adalora", "8"))]
    c3a, fourier, adalora = (text("mean", other, CDD, sure=False) for other in others)
    assert f"do not differ surely from D C D in the mean ({c3a}, {fourier} and {adalora})" in measured
    fourier, adalora = (text("mean", LORA_8, other, sure=True) for other in others[1:])
    assert f"FourierFT and AdaLoRA are {fourier} and {adalora} points below LoRA of rank 8" in measured
    fourier, adalora = (text("mrpc", LORA_8, other, sure=True) for other in others[1:])
    assert f"on MRPC, where FourierFT and AdaLoRA lose {fourier} and {adalora}." in measured
    blocks = ("query-value", "cdd-blocks", "128")
    differing = [
        (task, case)
        for task in ("goemotions", "sst2", "banking77")
        for case in of_place(scores, task, "query-value", "cdd", "cdd-blocks")
        if minus(task, case, LORA_8)[2]
    ]
    assert differing == [("sst2", blocks), ("banking77", FIVE)]
    assert (
        "no size of CDD differs surely from LoRA of rank 8, but blocks of 128 on SST-2 "
        f"({text('sst2', LORA_8, blocks, sure=True)} below) and five factors on BANKING77 "
        f"({text('banking77', LORA_8, FIVE, sure=True)} below)" in measured
    )
    pairs = (FIVE, CDD), (SEVEN, CDD), (CDD, LORA_2), (LORA_16, LORA_8)
    five, seven, two, sixteen = (text("mean", *pair, sure=False) for pair in pairs)
    assert (
        f"Neither five factors (23,040 parameters) nor seven (32,256) are surely different from three in the mean "
        f"({five} and {seven}), nor is D C D from LoRA of rank 2 (18,432; {two}), nor LoRA of rank 16 (147,456) from "
        f"that of rank 8 ({sixteen})" in measured
    )
    assert f"seven factors are {text('mean', LORA_8, SEVEN, sure=True)} points below LoRA of rank 8" in measured
    assert (
        f"D C D loses {text('cola', LORA_8, CDD, sure=True)} points on CoLA, where it is "
        f"{text('cola', HEAD, CDD, sure=True)} below the head alone, and {text('mrpc', LORA_8, CDD, sure=True)} on MRPC"
        in measured
    )
    c3a, fourier, adalora = (text("cola", LORA_8, other, sure=True) for other in others)
    blocks = text("cola", LORA_8, ("query-value", "cdd-blocks", "64"), sure=False)
    assert (
        f"lose too, by {c3a}, {fourier} and {adalora} points; D C D in blocks of 64 does not surely ({blocks})"
        in measured
    )
    adapters = of_place(scores, "banking77", "query-value", "lora", "cdd", "cdd-blocks", "c3a-corrected", "fourierft")
    adapters += of_place(scores, "banking77", "query-value", "adalora")
    assert len(adapters) > 5
    assert not any(minus("banking77", case, HEAD)[2] for case in adapters)


def test_intermediate_layers(measured, minus, text):
    assert (
        f"is, in the mean, {text('mean', ONE_C, CDD, sure=True)} points above D C D on query and value, and not surely "
        f"different from LoRA of rank 8 there ({text('mean', ONE_C, LORA_8, sure=False)}), which has 5.6 times as many"
        in measured
    )
    assert (
        f"(20,736) is {text('mean', INTERMEDIATE, CDD, sure=True)} points above D C D on query and value; it is not "
        f"surely different from a shared one ({text('mean', INTERMEDIATE, ONE_C, sure=False)})" in measured
    )
    assert (
        "LoRA of rank 1 in the same layers (11,520) is not surely different from a shared one "
        f"({text('mean', LORA_1_THERE, ONE_C, sure=False)}), and {text('mean', INTERMEDIATE, LORA_1_THERE, sure=True)} "
        "points below six" in measured
    )
    assert (
        "LoRA of rank 8 (92,160) is better than both, by "
        f"{text('mean', LORA_8_THERE, ONE_C, sure=True)} and {text('mean', LORA_8_THERE, INTERMEDIATE, sure=True)} "
        "points" in measured
    )
    assert (
        f"is on CoLA, {text('cola', ONE_C, CDD, sure=True)} points with one circulant and "
        f"{text('cola', INTERMEDIATE, CDD, sure=True)} with six" in measured
    )
    others = [(task, case) for task in TASKS if task != "cola" for case in (ONE_C, INTERMEDIATE)]
    assert not any(minus(task, case, CDD)[2] for task, case in others)
    assert (
        "On MRPC both stay behind LoRA of rank 8 in the same layers, by "
        f"{text('mrpc', LORA_8_THERE, ONE_C, sure=True)} and "
        f"{text('mrpc', LORA_8_THERE, INTERMEDIATE, sure=True)} points, on BANKING77 six circulants, by "
        f"{text('banking77', LORA_8_THERE, INTERMEDIATE, sure=True)}, and on SST-2 one, by "
        f"{text('sst2', LORA_8_THERE, ONE_C, sure=True)}" in measured
    )
    assert (
        f"LoRA of rank 2 (23,040) is not surely different from a shared one either "
        f"({text('mean', LORA_2_THERE, ONE_C, sure=False)}), and {text('mean', INTERMEDIATE, LORA_2_THERE, sure=True)} "
        f"points below six, which have a tenth fewer parameters: "
        f"{text('cola', INTERMEDIATE, LORA_2_THERE, sure=True)} on CoLA, while it is "
        f"{text('banking77', LORA_2_THERE, INTERMEDIATE, sure=True)} above them on BANKING77, and on no other task is "
        "the difference sure" in measured
    )
    assert not any(minus(task, INTERMEDIATE, LORA_2_THERE)[2] for task in ("goemotions", "sst2", "mrpc"))
    behind = {(t, c) for t in TASKS for c in (ONE_C, INTERMEDIATE) if minus(t, LORA_8_THERE, c)[2]}
    assert behind == {("mrpc", ONE_C), ("mrpc", INTERMEDIATE), ("banking77", INTERMEDIATE), ("sst2", ONE_C)}


def test_all_linear_layers(measured, minus, text):
    above, below = text("mean", EVERYWHERE, LORA_8, sure=True), text("mean", LORA_8_EVERYWHERE, EVERYWHERE, sure=True)
    assert (
        f"is, in the mean, {above} points above LoRA of rank 8 on query and value, which has about as many, "
        f"{text('mean', EVERYWHERE, CDD, sure=True)} above D C D there and "
        f"{text('mean', EVERYWHERE, INTERMEDIATE, sure=True)} above D C D in the intermediate layers; it is not surely "
        f"different from LoRA of rank 8 in the intermediate layers "
        f"({text('mean', EVERYWHERE, LORA_8_THERE, sure=False)})" in measured
    )
    assert (
        "LoRA of rank 16 on query and value, with 2.1 times as many, is "
        f"{text('mean', EVERYWHERE, LORA_16, sure=True)} points below it" in measured
    )
    assert (
        f"with 4.8 times as many, is {below} points above it: {text('cola', LORA_8_EVERYWHERE, EVERYWHERE, sure=True)} "
        f"on CoLA and {text('goemotions', LORA_8_EVERYWHERE, EVERYWHERE, sure=True)} on GoEmotions" in measured
    )
    for task in ("sst2", "banking77", "mrpc"):
        assert not minus(task, EVERYWHERE, LORA_8_EVERYWHERE)[2]
    assert (
        "LoRA of rank 2 there (82,944), with a fifth more, is not surely different from D C D "
        f"({text('mean', EVERYWHERE, LORA_2_EVERYWHERE, sure=False)} below): it is "
        f"{text('goemotions', LORA_2_EVERYWHERE, EVERYWHERE, sure=True)} points above D C D on GoEmotions, on no other "
        f"task is the difference sure, and it is {text('mean', LORA_2_EVERYWHERE, LORA_8, sure=True)} above LoRA of "
        "rank 8 on query and value too" in measured
    )
    assert not any(minus(task, EVERYWHERE, LORA_2_EVERYWHERE)[2] for task in TASKS[1:])
    assert (
        f"is not surely different from D C D ({text('mean', EVERYWHERE, LORA_1_EVERYWHERE, sure=False)} below): it is "
        f"{text('cola', EVERYWHERE, LORA_1_EVERYWHERE, sure=True)} points below D C D on CoLA and "
        f"{text('banking77', EVERYWHERE, LORA_1_EVERYWHERE, sure=True)} on BANKING77, and on no other task is the "
        "difference sure" in measured
    )
    assert (
        f"D C D with shared circulants (46,080) is {text('mean', EVERYWHERE, ONE_C_EVERYWHERE, sure=True)} points "
        "below D C D with a circulant for each layer, and not surely different from LoRA of rank 8 on query and value "
        f"({text('mean', ONE_C_EVERYWHERE, LORA_8, sure=False)})" in measured
    )
    for task in ("goemotions", "sst2", "mrpc"):
        assert not minus(task, EVERYWHERE, LORA_1_EVERYWHERE)[2]
    forms = [("all-linear", *of) for of in (("c3a-corrected", "128"), ("fourierft", "1152"), ("cdd-blocks", "64"))]
    assert not any(minus(task, form, EVERYWHERE)[2] for form in forms for task in TASKS[:3])
    assert (
        "C3A (82,944 parameters), FourierFT (41,472) and D C D in blocks of 64 (207,360) in all linear layers, which "
        "were run on GoEmotions, SST-2 and BANKING77, differ surely from D C D there on none of the three" in measured
    )


def test_everything_and_more_rows(measured, text, minus):
    full = ("query-value", "full", "")
    assert (
        f"is {text('mean', full, LORA_8, sure=True)} points above LoRA of rank 8 on query and value in the mean, by "
        f"{text('sst2', full, LORA_8, sure=True)} on SST-2 and {text('banking77', full, LORA_8, sure=True)} on "
        "BANKING77 and not surely on the other tasks" in measured
    )
    assert not any(minus(task, full, LORA_8)[2] for task in ("goemotions", "cola", "mrpc"))
    level = text("mean", LORA_8_EVERYWHERE, full, sure=False)
    assert (
        f"from D C D in all linear layers ({text('mean', full, EVERYWHERE, sure=False)} above), nor from LoRA of rank "
        f"8 there ({level})" in measured
    )
    more = "goemotions-more"
    differences = f"{text(more, CDD, LORA_8, sure=False)} and {text(more, LORA_1, LORA_8, sure=False)}"
    assert f"differs surely from LoRA of rank 8 ({differences})" in measured
    equal = [("query-value", "lora", "4"), ("query-value", "cdd-blocks", "64")]
    four, blocks = (text(more, case, LORA_8, sure=False) for case in equal)
    assert f"which have as many parameters as each other ({four} and {blocks})" in measured


def test_advice(text, minus):
    choose, faq, from_lora = (page(f"docs/{name}.md") for name in ("guide/choose", "faq", "guide/from_lora"))
    assert (
        f"ahead by {text('mean', INTERMEDIATE, CDD, sure=True)} points in the mean of five tasks, mostly by" in choose
    )
    assert (
        f"cost {text('mean', INTERMEDIATE, ONE_C, sure=False)} points in the mean of five tasks, which is not sure"
        in choose
    )
    cost = text("mean", EVERYWHERE, ONE_C_EVERYWHERE, sure=True)
    assert f"in all linear layers it saved a third, and cost {cost} |" in choose
    gain, ahead = (text("mean", EVERYWHERE, other, sure=True) for other in (INTERMEDIATE, LORA_8))
    behind = text("mean", LORA_8_EVERYWHERE, EVERYWHERE, sure=True)
    assert f"all linear layers, {gain} points above them in the mean with 3.3 times as many parameters" in choose
    assert (
        f"with 4.8 times fewer parameters than LoRA of rank 8 there, it is {behind} points behind it, and {ahead} "
        "ahead of LoRA of rank 8 on query and value" in faq
    )
    level = text("mean", EVERYWHERE, LORA_2_EVERYWHERE, sure=False)
    assert f"with a fifth more parameters than D C D, does not differ surely from it ({level} behind" in faq
    here = text("mean", INTERMEDIATE, LORA_2_THERE, sure=True)
    assert f"{here} points ahead of LoRA of rank 2 there, which has a tenth more parameters" in faq
    assert (
        f"in all linear layers (69,120 parameters) is {behind} points below LoRA of rank 8 there (331,776) and {ahead} "
        "above LoRA of rank 8 on query and value (73,728), while LoRA of rank 2 in all linear layers (82,944) is level"
        in from_lora
    )
    for case in (CDD, LORA_1):
        assert {task for task in TASKS if minus(task, LORA_8, case)[2]} == {"cola", "mrpc"}
    assert (
        "not differ surely from LoRA of rank 8 on three of five tasks, with 5.3 times fewer parameters, and behind it "
        f"on the other two, CoLA (by {text('cola', LORA_8, CDD, sure=True)} points) and MRPC "
        f"({text('mrpc', LORA_8, CDD, sure=True)}), as LoRA of rank 1 is" in faq
    )
    assert (
        f"from that LoRA in the mean of the tasks ({text('mean', ONE_C, LORA_8, sure=False)}); LoRA of rank 8 in these "
        f"layers is {text('mean', LORA_8_THERE, ONE_C, sure=True)} points ahead" in faq
    )
    text("mean", CDD, LORA_1, sure=False)
    there, here = text("mean", LORA_8_THERE, ONE_C, sure=True), text("mean", LORA_8, CDD, sure=True)
    assert (
        f"is {there} points below LoRA of rank 8 in the same layers (92,160), and on query and value (13,824) {here} "
        "below LoRA of rank 8 (73,728) and no better" in from_lora
    )


def test_quality_in_the_reproduction(scores):
    methods = (("cdd", "3"), ("lora", "8"), ("adalora", "8"), ("fourierft", "1152"), ("c3a-corrected", "128"))
    names = {"GoEmotions": "goemotions", "SST-2": "sst2", "BANKING77": "banking77", "MRPC": "mrpc"}
    table = [cells for cells in lines("docs/reproduction.md") if "accuracy on" in cells[0]]
    assert len(table) == 3
    for name, _, *cells in table:
        task = names[name.partition("accuracy on ")[2].partition(",")[0]]
        runs = [scores.get((task, ("query-value", *method))) for method in methods]
        assert cells == [f"{fmean(v):.1f} ± {stdev(v) / sqrt(5):.1f}" if v else "-" for v in runs]
