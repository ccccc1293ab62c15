"""The choice of an engine for each size, and what tells it."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat import _fourier
from structmat import _fourier as engine_choice
from structmat import _fourier as measured_choices

TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-13, "complex128": 1e-13}


def test_the_table_has_a_method_for_every_length() -> None:
    for dtype in TOLERANCE:
        for engine, many in itertools.product(("scipy", "ducc0", "auto", "torch"), (False, True)):
            limits = [limit for limit, _ in engine_choice.choices(dtype, engine, batched=many)]
            assert limits == sorted(limits)
            assert limits[-1] == np.inf
        for library in ("numpy", "ducc0", "torch"):
            sizes = list(measured_choices.direct_sizes(library, dtype).values())
            assert sizes == sorted(sizes, reverse=True)
            assert _fourier.direct_up_to(sizes[-1], library, dtype) == sys.maxsize
            assert _fourier.direct_up_to(sizes[0] + 1, library, dtype) == 0
            assert _fourier.direct_up_to(sizes[0], library, dtype) >= 1


def test_engines_that_are_none_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    C = sm.Circulant(np.ones(3))
    with pytest.raises(ValueError, match=r'Circulant\.prepare: engine must be "auto", "scipy" or "ducc0"'):
        C.prepare(engine="fftw")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ducc0", None)  # so that its import fails
    monkeypatch.setattr(engine_choice, "ducc", engine_choice.ducc.__wrapped__)
    with pytest.raises(ImportError, match=r"structmat\[fast\]"):
        C.prepare(engine="ducc0")


@pytest.mark.parametrize("fast", [False, True])
def test_the_configuration_is_told(fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    if fast and not _fourier.ducc():
        pytest.skip("needs structmat[fast]")
    if not fast:
        monkeypatch.setattr(engine_choice, "ducc", lambda: None)
        monkeypatch.setattr("structmat._fourier.ducc", lambda: None)
        monkeypatch.setattr("structmat.operators._prepared.ducc", lambda: None)
    sm.show_config()
    text = capsys.readouterr().out
    assert f"numpy {np.__version__}" in text
    assert text.count("one vector: dense for n <= ") == 4
    assert text.count("8 vectors or more: dense for n <= ") == 4
    assert ("ducc0.fft.convolve_axis" in text) == fast
    assert ("structmat[fast]" in text) != fast
    for dtype, limit in re.findall("  ([a-z0-9]+), one vector: dense for n <= ([0-9]+)", text):
        sizes = int(limit), int(limit) // 16 * 16 + 16  # one that is transformed as it is
        assert [sm.Circulant(np.ones(n, dtype)).prepare().direct > 0 for n in sizes] == [True, False]


def test_no_method_is_told_for_sizes_that_are_dense(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    table = ((10, "never taken"), (np.inf, "taken"))
    monkeypatch.setattr("structmat._fourier.choices", lambda *_, **__: table)
    sm.show_config()
    text = capsys.readouterr().out
    assert (text.count("never taken"), text.count(", taken")) == (0, 8)


def test_no_engine_is_imported_before_the_first_product() -> None:
    code = "import sys, structmat; print([m for m in ('scipy.fft', 'ducc0', 'ducc0.fft') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
