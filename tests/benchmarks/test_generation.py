"""`benchmarks/generation.py`: what its texts say, what a model is asked to predict, that a killed run goes on alike."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import rows_of

RESULTS = Path(__file__).parents[2] / "benchmarks/results"

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that this one only meets here


@pytest.fixture(scope="module")
def texts(modules):
    return modules("_generation_texts")


@pytest.fixture(scope="module")
def runs(modules):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    return modules("_generation_runs")


@pytest.fixture(scope="module")
def base(runs, tmp_path_factory):
    made = runs.Base(width=48, inner=96, layers=1, heads=2, length=32, batch=2, steps=2)
    return made, made.trained(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def bench(runs, base):
    made, weights = base
    return runs.Generations(runs.Table(weights.parent / "generation.csv", runs.COLUMNS), made, weights)


def test_dates_are_written_as_they_are_spoken(texts):
    cases = {
        (1987, 3, 21): ("einundzwanzigster maerz 1987", "the twenty first of march 1987"),
        (1701, 1, 1): ("erster januar 1701", "the first of january 1701"),
        (2016, 12, 30): ("dreissigster dezember 2016", "the thirtieth of december 2016"),
        (1800, 2, 7): ("siebter februar 1800", "the seventh of february 1800"),
        (2000, 5, 12): ("zwoelfter mai 2000", "the twelfth of may 2000"),
        (1912, 8, 26): ("sechsundzwanzigster august 1912", "the twenty sixth of august 1912"),
    }
    for numbers, (german, english) in cases.items():
        date = texts.Date(*numbers)
        assert texts.in_german(date) == (f"d{date}=", german)
        assert texts.english_date(date) == english
    assert [texts.english(n) for n in (0, 20, 101, 9090)] == [
        "zero", "twenty", "one hundred one", "nine thousand ninety",
    ]  # fmt: skip


def test_parts_have_no_common_day_and_the_base_learns_from_its_own(texts):
    parts = texts.dates()
    days = [day for part in parts for day in part]
    assert len(days) == len(set(days)) == 146_097  # days of 400 years
    assert parts.base[0] != min(parts.base)
    of_base = set(map(str, parts.base))
    mixed = texts.mixture(3000, seed=1)
    dated = [text for text in mixed if text.prompt[0] in "df"]
    assert {text.prompt[1:-1] for text in dated} <= of_base
    assert not {text.answer for text in mixed} & {texts.german_date(day) for day in parts.base[:1000]}
    shares = Counter(text.prompt[0] for text in mixed)
    assert set(shares) == set("nwdfr")
    assert min(shares.values()) > 400
    told = mixed + [texts.in_german(day) for day in parts.test[:1000]]
    assert set("".join(prompt + answer for prompt, answer in told)) <= set(texts.CHARACTERS) - {texts.END}


def test_answers_and_their_ends_are_what_is_predicted(texts, runs):
    def told(tokens, labels):
        return "".join(texts.CHARACTERS[i] for i in tokens[labels != runs.IGNORED])

    made = [texts.Text("n3=", "three"), texts.Text("rab=", "ba")]
    tokens, labels = runs.padded(made)
    shown = ["".join(texts.CHARACTERS[i] for i in row) for row in tokens]
    assert shown == ["\nn3=three\n", "\nrab=ba\n\n\n"]
    assert [told(*pair) for pair in zip(tokens, labels, strict=True)] == ["three\n", "ba\n"]

    tokens, labels = (found.flatten() for found in runs.Base(batch=2, steps=3, length=64).rows())
    assert ((labels == tokens) | (labels == runs.IGNORED)).all()
    whole = "".join(text.answer + texts.END for text in texts.mixture(100, seed=0))
    assert len(told(tokens, labels)) > 100
    assert whole.startswith(told(tokens, labels))


def test_scores_count_whole_answers_and_edits(runs):
    cases = [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ab", 1), ("", "abc", 3)]
    cases.append(("kitten", "sitting", 3))
    assert [runs.edits(a, b) for a, b, _ in cases] == [edits for *_, edits in cases]
    assert [runs.edits(b, a) for a, b, _ in cases] == [edits for *_, edits in cases]
    assert runs.scores(["abc", "abd"], ["abc", "abc"]) == {"exact": "0.500000", "character_error": "0.166667"}


def test_characters_decide_between_rates_with_equally_many_right_answers(modules, bench):
    protocol = modules("_fair_plan").Protocol(metric="exact")
    found = [("", ""), ("0.0", "0.6"), ("0.0", "0.5"), ("0.005", "3.0"), ("0.5", "0.2"), ("0.5", "0.1")]
    scores = [bench._score({"exact": a, "character_error": b}, protocol) for a, b in found]
    assert sorted(set(scores)) == scores


def test_answers_are_the_most_likely_characters(texts, runs, bench):
    torch = pytest.importorskip("torch")
    model = bench.decoder()
    prompts = [f"d{day}=" for day in texts.dates().test[:3]]
    found = runs.answers(model, prompts, 8, batch=2)
    for prompt, answer in zip(prompts, found, strict=True):
        tokens = [texts.CHARACTERS.index(c) for c in texts.END + prompt]
        for _ in range(8):
            tokens.append(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax().item())
        assert "".join(texts.CHARACTERS[i] for i in tokens[1 + len(prompt) :]).partition(texts.END)[0] == answer


def test_a_killed_study_goes_on_and_gives_the_same_numbers(modules, runs, base, tmp_path):
    plan, (made, weights) = modules("_fair_plan"), base
    sizes = {"rows": 4, "epochs": 1, "batch": 4, "held_back": 2, "test_rows": 3}
    protocol = plan.Protocol(**sizes, trial_seeds=(8,), final_seeds=(0, 1), metric="exact")
    cases = [plan.Case("dates", "decoder", "cdd", 3), plan.Case("dates", "decoder-ia3", "ia3", None)]
    path = tmp_path / "generation.csv"

    def go_on():
        bench = runs.Generations(runs.Table(path, runs.COLUMNS), made, weights)
        for case in cases:
            bench.do(case, protocol)
        bench.table.file.close()

    go_on()
    whole, lines = rows_of(path), path.read_text().splitlines(keepends=True)
    assert {(row["stage"], row["tested"]) for row in whole} == {("trial", "2"), ("final", "3")}
    path.write_text("".join(lines[:-2]) + lines[-2][:30])  # killed while it wrote
    go_on()
    assert rows_of(path) == whole

    other = runs.Base(**{**vars(made), "seed": 1}).trained(tmp_path)
    with pytest.raises(SystemExit, match="runs of other bases"):
        runs.Generations(runs.Table(path, runs.COLUMNS), made, other)


def test_a_report_pairs_by_seed_and_says_what_failed(modules):
    plan, report = modules("_fair_plan"), modules("_generation_report")
    protocol = plan.Protocol(final_seeds=(0, 1, 2), metric="exact")
    cases = tuple(plan.Case("dates", "decoder", *sized) for sized in (("cdd", 3), ("lora", 1), ("lora", 2)))
    scores = {cases[0]: (0.5, 0.6, 0.7), cases[1]: (0.49, 0.59, 0.68), cases[2]: (0.5, None, 0.7)}
    rows = [
        {
            **{name: str(value) for name, value in vars(case).items()}, "stage": "final", "lr": "0.01",
            "seed": str(seed), "parameters": str(100 * case.size), "exact": "" if exact is None else str(exact),
            "character_error": "" if exact is None else "0.01", "seconds": "30", "file_bytes": "1500",
        }
        for case, several in scores.items() for seed, exact in enumerate(several)
    ]  # fmt: skip
    found = report.last_runs(rows, cases, protocol)
    assert report.summary(found).endswith("D C D: none; fewer: none; not told apart from it: LoRA r = 1.")
    lines = report.comparison(found).splitlines()[2:]
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines}
    assert cells["LoRA r = 2"][2] == "1 of 3 runs failed to train"
    assert cells["D C D"][2:5] == ["60.0 ± 24.8", "1.00", ""]  # 4.303 times 10 / sqrt(3)
    assert cells["LoRA r = 1"][4] == "−1.3 ± 1.4"  # 1, 1 and 2 points
    assert list(report.last_runs(rows[1:], cases, protocol)) == list(cases[1:])


def test_last_runs_have_the_best_rate_of_the_trials(modules):
    generation, plan = modules("_generation_plan"), modules("_fair_plan")
    rows = modules("_fair_report").read(RESULTS / "generation.csv")
    scores, chosen = {}, {}
    assert len({row["base"] for row in rows}) == 1
    for row in rows:
        case = row["task"], row["places"], row["method"], row["size"]
        if row["stage"] == "trial":
            score = float(row["exact"] or "-inf"), -float(row["character_error"] or 0)
            scores.setdefault(case, {}).setdefault(float(row["lr"]), []).append(score)
        else:
            chosen.setdefault(case, []).append(float(row["lr"]))
    assert [tuple(str(value or "") for value in vars(case).values()) for case in generation.CASES] == [*chosen]
    for case, rates in chosen.items():
        protocol, first = generation.PROTOCOLS[case[0]], generation.RATES[case[2]]
        assert not set(protocol.trial_seeds) & set(protocol.final_seeds)
        means = {rate: tuple(np.mean(values, axis=0)) for rate, values in scores[case].items()}
        assert {len(values) for values in scores[case].values()} == {len(protocol.trial_seeds)}
        assert rates == [max(sorted(means), key=means.get)] * len(protocol.final_seeds), case
        further = plan.beyond(first, max(sorted(first), key=means.get))
        assert set(means) == {*first, further} - {None}, case
