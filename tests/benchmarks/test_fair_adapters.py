"""`benchmarks/fair_adapters.py`: which rates are tried, that a killed run goes on alike, what the report computes."""

import base64
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import rows_of

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that this one only meets here


@pytest.fixture(scope="module")
def runs(modules):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    return modules("_fair_runs")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=20, **sizes)).save_pretrained(folder)
    return str(folder)


def test_one_rate_further_where_the_best_is_at_the_edge(modules):
    beyond = modules("_fair_plan").beyond
    rates = (0.003, 0.01, 0.03, 0.1)
    assert [beyond(rates, rate) for rate in rates] == [0.001, None, None, 0.3]
    assert [beyond((3e-5, 1e-4, 3e-4, 1e-3), rate) for rate in (3e-5, 1e-3)] == [1e-5, 3e-3]
    assert beyond((0.1, 0.3, 1.0, 3.0), 3.0) == 10


def bench(runs, plan, path, model, trials=()):
    import torch

    from finetune.data import Rows

    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> Rows:
        tokens = [torch.randint(1, 20, (5,), generator=generator) for _ in range(count)]
        return Rows(tokens, torch.stack([(row.sum() > 50).long() for row in tokens]))

    made = runs.Bench(runs.Table(path), ROOT, plan.RATES, model, trials)
    made.parts["sst2"] = drawn(40), drawn(9)
    protocol = plan.Protocol(16, 1, 10, 7, (8, 9), (0, 1), batch=8)
    return made, protocol


def test_a_killed_run_goes_on_and_gives_the_same_numbers(modules, runs, model, tmp_path):
    plan = modules("_fair_plan")
    case = plan.Case("sst2", "query-value", "lora", 1)
    path = tmp_path / "fair_adapters.csv"
    made, protocol = bench(runs, plan, path, model)
    made.do(case, protocol)
    made.table.file.close()
    whole, text = rows_of(path), path.read_text()
    trials = [row for row in whole if row["stage"] == "trial"]
    assert [row["seed"] for row in trials[:8]] == ["8", "9"] * 4
    assert len(trials) in {8, 10}
    assert [row["tested"] for row in whole] == ["10"] * len(trials) + ["7"] * 2
    assert all(row["right"] == "" for row in trials)
    mean = {row["lr"]: 0.0 for row in trials}
    for row in trials:
        mean[row["lr"]] += float(row["accuracy"]) / 2
    best = max(sorted(mean, key=float), key=mean.get)
    assert [(row["lr"], row["seed"]) for row in whole[len(trials) :]] == [(best, "0"), (best, "1")]

    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-2][:30])  # killed while it wrote
    made, protocol = bench(runs, plan, path, model)
    trained = []
    train = made._train
    made._train = lambda *a, **k: trained.append(a) or train(*a, **k)
    made.do(case, protocol)
    made.table.file.close()
    assert rows_of(path) == whole
    assert len(trained) == 2


def test_trials_of_earlier_days_are_not_done_again(modules, runs, model, tmp_path):
    """They choose the rate of the last runs, which are done."""
    plan, case = modules("_fair_plan"), ("sst2", "query-value", "lora", "1")
    row = dict.fromkeys(runs.COLUMNS, "") | dict(zip(plan.CASE, case, strict=True)) | {"rows": "16", "epochs": "1"}
    trials = [
        row | {"stage": "trial", "lr": f"{lr:g}", "seed": seed, "accuracy": str(int(lr == 0.001))}
        for lr in plan.RATES["lora"]
        for seed in ("8", "9")
    ]
    made, protocol = bench(runs, plan, tmp_path / "fair_adapters.csv", model, trials)
    made.do(plan.Case("sst2", "query-value", "lora", 1), protocol)
    made.table.file.close()
    done = [(each["stage"], each["lr"], each["seed"]) for each in rows_of(tmp_path / "fair_adapters.csv")]
    assert done == [("final", "0.001", "0"), ("final", "0.001", "1")]


def test_runs_of_other_code_are_not_added_to(modules, runs, model, tmp_path):
    made, _ = bench(runs, modules("_fair_plan"), tmp_path / "fair_adapters.csv", model)
    made.require_one_commit()
    row = dict.fromkeys(runs.COLUMNS, "")
    made.table.append(row | {"seed": "0", "commit": made.commit})
    made.require_one_commit()
    made.table.append(row | {"seed": "1", "commit": "another"})
    with pytest.raises(SystemExit, match="runs of another"):
        made.require_one_commit()


def test_runs_of_the_study_clip_all_gradients_together(modules, runs, model, tmp_path, monkeypatch):
    """As all of them did, whatever the example does by itself."""
    plan, settings = modules("_fair_plan"), []
    made, protocol = bench(runs, plan, tmp_path / "fair_adapters.csv", model)
    monkeypatch.setattr(runs, "fit", lambda _model, _prepared, _run, used, **_: settings.append(used))
    made.run(plan.Case("sst2", "query-value", "lora", 1), protocol, "final", 0.01, 0)
    assert [used.clipped_apart for used in settings] == [False]
    assert runs.Settings(None, 1, 8, 0.01, 5, None, "cpu").clipped_apart


def test_scores_of_two_classes(runs):
    labels, predicted = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.array([1, 1, 0, 0, 0, 1, 0, 1])
    found = runs.scores(predicted, labels, bits=True)
    # 3 true positives, 3 true negatives, 1 false positive, 1 false negative
    assert [float(found[name]) for name in ("accuracy", "matthews", "f1")] == pytest.approx([0.75, 0.5, 0.75])
    assert base64.b64decode(found["right"]) == bytes([0b11011011])
    assert float(runs.scores(np.zeros(8, int), labels, bits=False)["matthews"]) == 0
    assert "f1" not in runs.scores(predicted, labels + 1, bits=False)


def result(modules, task, places, method, size, scores, parameters=100, seconds=10.0, processor="one"):
    case = modules("_fair_plan").Case(task, places, method, size)
    scores, processors = np.array(scores, float), (processor,) * len(scores)
    return modules("_fair_report").Result(case, "0.01", parameters, scores, seconds, processors)


def test_differences_are_paired_by_seed(modules):
    report = modules("_fair_report")

    lora = result(modules, "goemotions", "query-value", "lora", 8, [50, 60, 55, 52, 58], 7000)
    one = result(modules, "goemotions", "query-value", "lora", 1, [49, 59, 54, 51, 57], 900)
    ours = result(modules, "goemotions", "query-value", "cdd", 3, [49, 58, 54, 50, 57], 1300)
    difference = report.mean_of(ours.scores - lora.scores)  # -1, -2, -1, -2, -1
    assert difference.mean == pytest.approx(-1.4)
    assert difference.error == pytest.approx((0.3 / 5) ** 0.5)
    assert difference.half == pytest.approx(2.7764 * difference.error, rel=1e-4)
    assert str(difference) == "−1.4 ± 0.2*"
    assert report.nearest_lora(ours, [lora, one, ours]) is one
    lines = report.quality_table([lora, one, ours], "goemotions", "query-value").splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[5:-1]] == ["−1.4 ± 0.2*", "−0.4 ± 0.2 (r = 1)"]


def test_differences_of_several_tasks_have_two_intervals(modules):
    report = modules("_fair_report")
    found = []
    for task, gap in (("goemotions", [1, 1, 1, 1, 1]), ("sst2", [3, 4, 3, 4, 3]), ("trec", [0, 1, 2, 3, 4])):
        lora = result(modules, task, "intermediate", "lora", 2, [50, 60, 55, 52, 58], 23040)
        other = "one" if task == "trec" else "another"
        found += [lora, result(modules, task, "intermediate", "cdd", 3, lora.scores + gap, 20736, 12.0, other)]
        if task != "trec":
            found += [result(modules, task, "intermediate", "lora", 1, lora.scores - 1, 11520)]
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in report.comparison(found).splitlines()[2:]]
    assert [line[1] for line in lines] == ["common: 2", "without CoLA: 2", "held out: 1", "all: 3"]
    # per seed 2, 2.5, 2, 2.5, 2
    assert lines[0][2:5] == ["57.2 (20,736)", "54.0 (11,520)", "55.0 (r = 2: 23,040)"]
    assert lines[0][5:] == ["+2.2 ± 0.1*", "", "0 of 2", ""]
    assert lines[2][3:] == ["", "55.0 (r = 2: 23,040)", "+2.0 ± 0.7*", "", "1 of 1", "1.20"]
    assert lines[3][6:8] == ["± 3.0", "1 of 3"]  # 4.30 times the standard error of 1, 3.4 and 2


def test_a_mean_is_of_the_tasks_that_the_product_was_run_on(modules):
    """What was not run on each of these has no mean, and tasks with other rows do not count."""
    report = modules("_fair_report")

    a, b = [50, 60, 55, 52, 58], [40, 44, 41, 44, 40]
    runs = [
        result(modules, "goemotions", "query-value", "lora", 8, a, 7000),
        result(modules, "sst2", "query-value", "lora", 8, b, 7000),
        result(modules, "sst2", "query-value", "lora", 2, b, 1700),
        result(modules, "mrpc", "query-value", "lora", 8, a, 7000),
        result(modules, "sst2", "query-value", "cdd", 3, b, 1300),
        result(modules, "goemotions", "query-value", "cdd", 3, b, 1300),
        result(modules, "goemotions-more", "query-value", "cdd", 3, a, 1300),
    ]
    mean, _ = report.averaged(runs)
    assert (mean.case.task, mean.case.method, mean.parameters) == ("mean", "lora", 7000)
    assert list(mean.scores) == [45, 52, 48, 48, 49]
    assert report.averaged(runs[:1]) == []


def test_other_forms_begin_as_the_frozen_weight_and_learn(modules, model):
    torch, BertModel = pytest.importorskip("torch"), pytest.importorskip("transformers").BertModel

    found = modules("_fair_forms")
    forms, plan = found.FORMS, found.Plan(1e-3, 10, None, "all-linear")
    tokens = torch.arange(1, 13).reshape(2, 6)
    expected = BertModel.from_pretrained(model, add_pooling_layer=False).eval()(tokens).last_hidden_state
    for form in forms.values():
        encoder = BertModel.from_pretrained(model, add_pooling_layer=False).eval()
        trained = form.prepare(encoder, plan).groups[0]["params"]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        for step in range(2):
            changed = encoder(tokens).last_hidden_state
            assert torch.allclose(changed, expected, atol=1e-5) == (step == 0)
            changed.square().sum().backward()
            optimizer.step()
        assert all(p.grad is not None for p in trained)


def test_last_runs_have_the_best_rate_of_the_trials(modules):
    plan, report = modules("_fair_plan"), modules("_fair_report")
    both = (report.read(ROOT / f"benchmarks/results/{name}.csv") for name in ("fair_adapters", "fair_adapters_earlier"))
    rows = report.merged(*both)
    scores, chosen = {}, {}
    assert not any(set(p.trial_seeds) & set(p.final_seeds) for p in plan.PROTOCOLS.values())
    for row in rows:
        case = row["task"], row["places"], row["method"], row["size"]
        if row["stage"] == "trial":
            score = float(row[plan.PROTOCOLS[row["task"]].metric] or "-inf")
            scores.setdefault(case, {}).setdefault(float(row["lr"]), []).append(score)
        else:
            chosen.setdefault(case, set()).add(float(row["lr"]))
    assert len(chosen) > 70
    for case, rates in chosen.items():
        means = {rate: sum(values) / 2 for rate, values in scores[case].items()}
        assert {len(values) for values in scores[case].values()} == {2}
        assert rates == {max(sorted(means), key=means.get)}, case
        best = plan.beyond(plan.RATES[case[2]], max(sorted(plan.RATES[case[2]]), key=means.get))
        assert set(means) == set(plan.RATES[case[2]]) | ({best} if best else set()), case
