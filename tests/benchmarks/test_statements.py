"""What README and the pages say of the accuracy of adapters, held to the tables of runs."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"


def words(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def runs(modules):
    modules("_statements")  # so that no test is charged for what it imports
    read = modules("_fair_report").read
    names = ("fair_adapters", "fair_adapters_earlier", "fair_adapters_again", "few_parameters", "adapter_pairs")
    names += ("fair_adapters_all_linear", "learning_rates", "image_adapters", "generation")
    found = {name: read(RESULTS / f"{name}.csv") for name in names}
    merged = modules("_fair_report").merged
    return found | {"all": merged(found["fair_adapters"], found["fair_adapters_earlier"])}


def missing(page: str, expected: list[str]) -> list[str]:
    """Return which of the expected texts a page does not have."""
    text = words((ROOT / page).read_text("utf-8"))
    return [words(part) for part in expected if words(part) not in text]


def test_the_page_on_reproduction_says_what_the_runs_say(modules, runs):
    of = modules("_statements")
    found = modules("_fair_report").results(runs["fair_adapters"], modules("_fair_plan").compared())
    expected = [*of.summary(found).splitlines(), *of.of_fair_runs(runs["fair_adapters"])]
    assert missing("docs/reproduction.md", expected) == []


def test_the_page_on_reproduction_says_what_the_runs_in_all_linear_layers_say(modules, runs):
    rows = runs["fair_adapters_all_linear"]
    assert missing("docs/reproduction.md", modules("_statements").of_all_linear(rows)) == []
    assert {row["commit"] for row in rows} == {row["commit"] for row in runs["fair_adapters"]}
    assert len({row["machine"] for row in rows}) == 1


def test_the_page_on_reproduction_says_what_the_runs_of_earlier_days_say(modules, runs):
    expected = modules("_statements").of_earlier_runs(runs["fair_adapters_earlier"])
    assert missing("docs/reproduction.md", expected) == []


def test_the_page_on_reproduction_says_what_the_runs_of_few_parameters_say(modules, runs):
    assert missing("docs/reproduction.md", modules("_statements").of_few_parameters(runs["few_parameters"])) == []


def test_the_page_on_reproduction_says_what_the_runs_at_several_rates_say(modules, runs):
    """At each rate of LoRA's, in both places, D C D gains nearly as much as LoRA does."""
    of, rows = modules("_statements"), runs["learning_rates"]
    assert missing("docs/reproduction.md", of.of_learning_rates(rows)) == []
    gains = of.gains_at_rates(rows)
    assert len(gains) == 8
    assert min(gains.values()) >= 0.85
    assert len({row["commit"] for row in rows}) == 1
    assert "" not in {row["commit"] for row in rows}


def test_the_page_on_reproduction_says_what_the_runs_on_images_say(modules, runs):
    rows = runs["image_adapters"]
    assert missing("docs/reproduction.md", modules("_statements").of_images(rows)) == []
    assert len({row["commit"] for row in rows}) == 1
    assert "" not in {row["commit"] for row in rows}


def test_the_page_on_reproduction_says_what_the_runs_of_a_decoder_say(modules, runs):
    assert missing("docs/reproduction.md", modules("_statements").of_generation(runs["generation"])) == []


def test_the_pages_say_what_one_difference_changes(modules, runs):
    of, both = modules("_statements"), (runs["adapter_pairs"], runs["all"])
    assert missing("docs/reproduction.md", [*of.of_clipping(*both), *of.of_forms(*both)]) == []
    assert missing("benchmarks/tried.md", of.of_tried_clipping(*both)) == []


def test_the_guide_says_what_the_runs_say_of_the_layers_to_adapt(modules, runs):
    costs = (RESULTS / "adapter_costs.md").read_text("utf-8")
    of_runs = (runs[name] for name in ("adapter_pairs", "fair_adapters", "fair_adapters_earlier"))
    expected = modules("_statements").of_the_guide(*of_runs, costs)
    assert missing("docs/guide/fine_tuning.md", expected) == []


def test_the_guide_says_what_the_runs_say_of_four_bits(modules, runs):
    expected = modules("_statements").of_four_bits(runs["few_parameters"])
    assert missing("docs/guide/fine_tuning.md", [expected]) == []


def test_the_runs_of_the_main_sentences_are_of_one_commit(modules, runs):
    """All methods have the same tasks and seeds, and the same processor."""
    rows, plan = runs["fair_adapters"], modules("_fair_plan")
    tasks = modules("_statements").whole_tasks(modules("_fair_report").results(rows, plan.compared()))
    cases = [case for case in plan.compared() if case.task in tasks]
    expected = {(*(str(value) for value in vars(case).values()), str(seed)) for case in cases for seed in range(5)}
    last = [row for row in rows if row["stage"] == "final"]
    assert {tuple(row[name] for name in (*plan.CASE, "seed")) for row in last} == expected
    assert len(last) == len(expected) > 0
    assert len({row["commit"] for row in rows}) == 1
    assert "" not in {row["commit"] for row in rows}
    assert len({row["machine"] for row in rows}) == 1


def test_all_runs_that_differ_in_one_thing_name_their_code(runs):
    assert {row["commit"] for row in runs["adapter_pairs"]} == {"5d87da70c0af", "6b1d93282a24", "5e148ce0d733"}


def test_readme_says_what_the_runs_say(modules, runs):
    assert missing("README.md", modules("_statements").of_readme(runs["fair_adapters"])) == []


def test_the_tables_of_results_are_those_of_the_runs(modules, runs):
    of_study = (runs[name] for name in ("fair_adapters", "fair_adapters_earlier", "fair_adapters_again"))
    parts = modules("_fair_report").page(*of_study)
    parts += modules("_pair_report").page(runs["adapter_pairs"], runs["all"])
    assert missing("benchmarks/results/adapter_accuracy.md", parts) == []


def test_another_score_is_noticed(modules, runs):
    """A run of D C D that is a point better changes the table."""
    of, report = modules("_statements"), modules("_fair_report")
    changed = [dict(row) for row in runs["fair_adapters"]]
    row = next(r for r in changed if r["method"] == "cdd" and r["places"] == "intermediate")
    row["accuracy"] = f"{float(row['accuracy']) + 0.1:.6f}"
    assert missing("docs/reproduction.md", of.of_fair_runs(changed)) != []
    parts = report.page(changed, runs["fair_adapters_earlier"], runs["fair_adapters_again"])
    assert missing("benchmarks/results/adapter_accuracy.md", parts) != []
