"""The checks of operators: they pass for every operator of the registry, and find each kind of fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import structmat as sm
from tests.backends import Backend
from tests.operator_registry import REGISTRY, Entry, Vectors

entries = pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)
C = np.array([1.0, 2.0, 5.0, 3.0])


@entries
def test_every_operator_obeys_every_law(backend: Backend, entry: Entry) -> None:
    if backend.compiles:
        pytest.skip("each operation would be compiled for each shape; test_laws goes through few of them")
    for seed, (dtype, batch) in enumerate((("float64", ()), ("complex128", (2,)))):
        sample = entry.draw(Vectors(seed, dtype, batch))
        sm.testing.check_operator(sample.make(backend.asarray), sample.dense, rng=seed)


class Faulty(sm.Circulant):
    """A circulant whose faults are given by name; T and conj keep them."""

    __slots__ = ()
    fault = ""

    def _transpose(self) -> Any:
        return type(self)(self.c if self.fault == "transpose" else np.roll(self.c[::-1], 1))

    def _matvec(self, x: Any, xp: Any) -> Any:
        y = super()._matvec(x.real if self.fault == "real" else x, xp)
        return y[..., ::-1] if self.fault == "matvec" else y

    def _rmatvec(self, y: Any, xp: Any) -> Any:
        return self._matvec(y, xp) if self.fault == "rmatvec" else super()._rmatvec(y, xp)

    def _diagonal(self, method: str, xp: Any) -> Any:
        return super()._diagonal(method, xp) * (2 if self.fault == "diagonal" else 1)

    def _svdvals(self, xp: Any) -> Any:
        return super()._svdvals(xp) + (self.fault == "svdvals")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("matvec", r"matvec of float64 \(4,\): off by"),
        ("rmatvec", r"rmatvec of float64 \(4,\): off by"),
        ("real", r"matvec makes float64 of complex128"),
        ("transpose", r"X @ op: off by"),
        ("diagonal", r"diagonal: off by"),
        ("svdvals", r"svdvals: off by"),
    ],
)
def test_a_fault_is_found_and_named(fault: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = scipy.linalg.circulant(C)
    sm.testing.check_operator(sm.Circulant(C), dense, rng=0)
    monkeypatch.setattr(Faulty, "fault", fault)
    with pytest.raises(AssertionError, match=f"Faulty: {text}"):
        sm.testing.check_operator(Faulty(C), dense, rng=0)


def test_a_wrong_matrix_or_shape_is_found() -> None:
    with pytest.raises(AssertionError, match="to_dense is not the dense matrix: off by"):
        sm.testing.check_operator(sm.Circulant(C), scipy.linalg.circulant(C).T)
    with pytest.raises(AssertionError, match=r"it has shape \(4, 4\)"):
        sm.testing.check_operator(sm.Circulant(C), np.eye(3))
    with pytest.raises(ValueError, match="check_operator: dense must be a matrix"):
        sm.testing.check_operator(sm.Circulant(C), C)
    with pytest.raises(TypeError, match="check_operator: operator must be a structmat operator, got ndarray"):
        sm.testing.check_operator(C, C)  # type: ignore[arg-type]


def test_the_adjoint_test_finds_a_wrong_adjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    C = sm.Circulant(np.arange(1.0, 7.0))
    assert sm.testing.adjoint_error(C) < 1e-14
    monkeypatch.setattr(sm.Circulant, "_rmatvec", lambda self, y, xp: self._matvec(y, xp))
    assert sm.testing.adjoint_error(C, rng=0) > 1e-3
    with pytest.raises(TypeError, match="adjoint_error: operator must be a structmat operator, got ndarray"):
        sm.testing.adjoint_error(np.eye(3))
