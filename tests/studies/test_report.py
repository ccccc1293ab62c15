"""What is made of a study: the page, the figures, and the commands."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import structmat as sm
from structmat import studies
from structmat.cli import main
from structmat.studies import Study, SweepConfig, load_study, read_config, report, sweep
from structmat.studies._sweep._figures import layers_figure, means_figure, ratio_figure

RNG = np.random.default_rng(0)
LAYERS = {"a<b> & c": RNG.standard_normal((8, 8)), "wide": RNG.standard_normal((6, 9))}
FAST = {"max_iter": 10, "restarts": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    sweep(SweepConfig(LAYERS, n_factors=[3, 5], block_sizes=["min", 3], **FAST), out)
    return out


@pytest.fixture(scope="module")
def study(folder):
    return load_study(folder)


class Page(HTMLParser):
    """The tags, addresses and text of a page; complains about tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.text, self.cells = [], [], [], 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        self.cells += tag == "td"
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_complete_and_needs_nothing_else(folder, study, tmp_path):
    assert report(folder).rows == study.rows
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.addresses) == 3
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not re.search(r"https?://", text)
    assert page.text.count("a<b> & c") == len(study.rows) // 2
    assert page.cells == 10 * len(study.rows) + 9 * len(study.means())
    assert "40 of 40, complete" in page.text
    words = "|".join(word for word in page.text if word.strip())
    for mean in study.means():
        rows = [row for row in study.rows if mean[:2] == (row.method, row.n_factors) and row.has_blocks(mean.block)]
        percent = 100 * np.mean([row.n_parameters / row.rows / row.cols for row in rows])
        assert f"{mean.method}|{mean.n_factors}|{mean.block}|2|{percent:.3g}|{mean.error:.4g}|" in words
    report(folder, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == text  # drawn again, bit for bit
    with pytest.raises(FileExistsError):
        report(folder, tmp_path / "page.html")
    report(folder, tmp_path / "page.html", force=True)


def test_an_unfinished_study_has_a_page_that_says_so(tmp_path):
    def stop(state):
        if state.n_units and state.n_done == stop.after:
            raise KeyboardInterrupt

    stop.after = 0
    with pytest.raises(KeyboardInterrupt):
        sweep(SweepConfig(LAYERS, **FAST), tmp_path / "out", callback=stop)
    with pytest.raises(ValueError, match="out has no results yet"):
        report(tmp_path / "out")
    for stop.after in (1, 5, 9):
        with pytest.raises(KeyboardInterrupt):
            sweep(SweepConfig(LAYERS, **FAST), tmp_path / "out", callback=stop)
        report(tmp_path / "out")
        text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
        assert f"{stop.after} of 10: unfinished, the same sweep continues it" in Page(text).text


def test_figures_show_every_method_layer_and_setting(study):
    left, right = means_figure(study).axes
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels == ["CDD product", "truncated SVD", "block circulant", "sparse Fourier", "Monarch"]
    assert left.get_xlabel() == "parameters, % of dense"
    assert means_figure(study).get_suptitle() == "Mean over 2 layers"
    one = Study(tuple(row for row in study.rows if row.layer == "wide"), len(study.rows))
    assert means_figure(one).get_suptitle() == f"wide, {len(one.rows)} of {len(study.rows)} results so far"
    means = {(m.block, m.n_factors): m for m in study.means() if m.method == "cdd"}
    thick = [line for line in right.lines if line.get_linewidth() > 1]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in thick]
    assert drawn == [([3, 5], [means[block, 3].error, means[block, 5].error]) for block in ("min", 3)]
    panels = layers_figure(study).axes
    assert [ax.get_title() for ax in panels] == list(LAYERS)
    ax = ratio_figure(study).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(LAYERS)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["3", "5", "3\nb=3", "5\nb=3"]
    errors = {(r.layer, r.method, r.n_factors): r.error for r in study.rows if r.has_blocks("min")}
    want = errors["wide", "cdd", 5] / errors["wide", "truncated-svd", 5]
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts[1, 1] == f"{want:.3f}"


def test_figures_of_odd_studies(study, tmp_path):
    only = Study(tuple(row for row in study.rows if row.method == "truncated-svd"), 5)
    assert ratio_figure(only) is None
    with pytest.raises(ValueError, match='must have rows to draw "ratios" of'):
        studies.study_figure(only, "ratios")
    with pytest.raises(ValueError, match="got 'bars'"):
        studies.study_figure(only, "bars")
    assert "10 of 5" not in means_figure(only).get_suptitle()
    exact = sweep(SweepConfig({"one": np.eye(4), "zero": np.zeros((4, 4))}, seeds=[0, 1]), tmp_path / "out")
    assert means_figure(exact).axes[0].get_yscale() == "log"
    ratio_figure(exact)
    layers_figure(exact).savefig(tmp_path / "a.png")
    many = Study(tuple(study.rows[0]._replace(layer=f"layer {k}") for k in range(50)), 50)
    figure = layers_figure(many)
    assert "the first 48 of 50 layers" in figure.get_supxlabel()
    assert [ax.get_title().split()[-1] for ax in figure.axes] == [str(k) for k in range(48)]


# The commands


@pytest.fixture
def cli(capfd, tmp_path, monkeypatch):
    """Run the command in a folder with two matrices; give its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    np.save("a.npy", RNG.standard_normal((8, 8)))
    np.save("b.npy", RNG.standard_normal((6, 9)))
    Path("study.toml").write_text('n_factors = [3, 5]\nmax_iter = 10\nrestarts = 0\n[[sources]]\nfiles = ["?.npy"]\n')

    def run(*arguments):
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        return status, *capfd.readouterr()

    return run


def test_a_sweep_and_its_report_from_the_command_line(cli, tmp_path):
    status, out, err = cli("sweep", "study.toml", "--out", "out")
    assert (status, err) == (0, "")
    study = load_study("out")
    lines = [line.split() for line in out.splitlines()]
    means = {(m.method, m.n_factors): m for m in study.means()}
    row = next(line for line in lines if line[:3] == ["5", "min", "2"])
    shown = [means[name, 5] for name in ("cdd", "truncated-svd", "block-circulant", "sparse-fourier", "monarch")]
    assert row[4:] == [f"{m.error:.4f}" if m.share else "-" for m in shown]
    assert "20 of 20 results, complete" in out
    assert max(map(len, out.splitlines())) <= 80

    status, out, err = cli("sweep", "study.toml", "--out", "out", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"out": "out", **json.loads(json.dumps(study.to_dict()))}

    status, out, err = cli("report", "out", "--csv", "t.csv", "--plot", "t.png", "--html", "t.html")
    assert (status, err) == (0, "")
    assert out.endswith("wrote t.html\nwrote t.csv\nwrote t.png\n")
    assert Path("t.png").read_bytes().startswith(b"\x89PNG")
    status, out, err = cli("report", "out", "--json")
    assert json.loads(out)["html"] == "out/report.html"
    assert Path("out/report.html").read_bytes() == Path("t.html").read_bytes()


def test_options_are_the_configuration(cli):
    options = ("--n-factors", "3,5", "--block-sizes", "min,3", "--methods", "cdd,monarch", "--seeds", "0,2")
    limits = ("--max-iter", 10, "--restarts", 0, "--no-growth", "--time-limit", 0.05)
    assert cli("sweep", "a.npy", "b.npy", "--out", "out", *options, *limits)[0] == 0
    rows = load_study("out").rows
    settings = {(r.layer, r.method, r.n_factors, r.block_size, r.seed) for r in rows}
    assert len(settings) == len(rows) == 2 * 2 * 2 * (2 + 1)
    assert ("a", "cdd", 5, 3, 2) in settings
    assert cli("sweep", "study.toml", "--out", "toml", "--methods", "truncated-svd", "--n-factors", "7")[0] == 0
    assert {(r.method, r.n_factors) for r in load_study("toml").rows} == {("truncated-svd", 7)}
    status, out, _ = cli("sweep", "--example")
    assert (status, out) == (0, studies.example_config())
    Path("example.toml").write_text(out)
    assert read_config("example.toml").n_factors == (3, 5, 9)


def test_ctrl_c_says_how_to_go_on(cli, monkeypatch):
    def interrupted(config, out, *, callback, **options):
        def hear(state):
            callback(state)
            if state.n_done == 3:
                raise KeyboardInterrupt

        return sweep(config, out, callback=hear, **options)

    with monkeypatch.context() as patched:
        patched.setattr(studies, "sweep", interrupted)
        status, out, err = cli("sweep", "study.toml", "--out", "out")
    assert (status, out) == (130, "")
    assert err == (
        "structmat sweep: 3 of 20 results are done and kept in out; the same command continues\n"
        "structmat sweep: interrupted\n"
    )
    assert len(load_study("out").rows) == 3
    status, out, _ = cli("report", "out")
    assert status == 0
    assert "3 of 20 results, unfinished" in out
    assert cli("sweep", "study.toml", "--out", "out")[0] == 0


def test_failed_units_are_a_failure(cli):
    np.save("b.npy", np.full((3, 3), np.inf))
    command = ("sweep", "study.toml", "--out", "out", "--methods", "truncated-svd")
    status, out, err = cli(*command, "--log-level", "error")
    assert status == 1
    assert "2 of 4 results, unfinished" in out
    assert err.startswith("structmat sweep: error: 2 of 4 units failed: b truncated-svd, 3 factors, ")
    assert err.endswith("b must be finite, got NaN or infinity\n")
    assert err.count("\n") == 1
    assert cli(*command)[2].count("WARNING b truncated-svd") == 2


def test_the_log_has_a_line_for_each_result(cli):
    status, _, err = cli("sweep", "a.npy", "--out", "out", "--log-level", "info")
    assert status == 0
    row = load_study("out").rows[0]
    assert err.count(" INFO a ") == 5
    assert f"error {row.error:.6f} in {row.seconds:.2f} s" in err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["sweep", "study.toml"], 2, "--out: is missing"),
        (["sweep", "--out", "out"], 2, "SOURCES: name a file .toml, matrices, or --base and --tuned"),
        (["sweep", "a.npy", "--out", "out", "--n-factors", "3;5"], 2, "--n-factors: must be integers with commas"),
        (["sweep", "a.npy", "--out", "out", "--n-factors", "0"], 2, "--n-factors: must be at least 1, got 0"),
        (
            ["sweep", "a.npy", "--out", "out", "--block-sizes", "max"],
            2,
            "--block-sizes: must be integers or min or toeplitz",
        ),
        (["sweep", "a.npy", "--out", "out", "--methods", "svd"], 2, '--methods: must be one of "cdd", "truncated-svd"'),
        (["sweep", "a.npy", "--out", "out", "--base", "x"], 2, "give either files, or base and tuned"),
        (["sweep", "a.npy", "--out", "out", "--targets", "("], 2, "--targets: must be a regular expression"),
        (["sweep", "study.toml", "--out", "out", "--base", "x"], 2, "--base: the sources stand in study.toml"),
        (["sweep", "bad.toml", "--out", "out"], 2, "CONFIG: bad.toml: n_factors must be an integer, got 2.5"),
        (["sweep", "bad.toml", "--out", "out", "--n-factors", "0"], 2, "--n-factors: must be at least 1, got 0"),
        (["sweep", "a.npy", "--out", "out", "--seeds", f"{1 << 63}"], 2, "--seeds: must be below 2**63"),
        (
            ["sweep", "a.npy", "--out", "out", "--block-sizes", "99"],
            1,
            "SOURCES: there is nothing to do: block_size must",
        ),
        (["sweep", "a.npy", "--out", "out", "--scheduler", "host"], 2, '--scheduler: must be "local" or an address'),
        (["sweep", "none.toml", "--out", "out"], 1, "CONFIG: none.toml: No such file"),
        (["sweep", "none.npy", "--out", "out"], 1, "none.npy: there is no such file"),
        (["sweep", "a.npy", "--out", "a.npy"], 1, "--out: a.npy"),
        (["sweep", "a.npy", "--out", "out", "--workers", "0"], 2, "--workers"),
        (["report", "."], 1, "FOLDER: must be the folder of a study, got ., which has no"),
        (["report", ".", "--csv", "t.txt"], 2, "--csv: t.txt must end in .csv"),
        (["report", ".", "--html", "a.npy"], 2, "--html: a.npy must end in .html"),
        (["report"], 2, "FOLDER"),
    ],
)
def test_wrong_usage_is_told_in_one_line(cli, tmp_path, arguments, status, text):
    (tmp_path / "bad.toml").write_text("n_factors = [2.5]\n[[sources]]\nfiles = ['a.npy']")
    got, out, err = cli(*arguments)
    assert (got, out) == (status, "")
    assert err.startswith(f"structmat {arguments[0]}: error: ")
    assert text in err
    assert err.count("\n") == 1


def test_progress_on_a_terminal(cli, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    status, _, err = cli("sweep", "study.toml", "--out", "out")
    assert status == 0
    assert "20/20" in err
    assert "left" in err


def test_version_of_rows(study):
    assert {row.version for row in study.rows} == {sm.__version__}
