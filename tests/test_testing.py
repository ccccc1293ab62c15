"""The checks of operators: they pass for every operator of the registry, and find each kind of fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import structmat as sm

C = np.array([1.0, 2.0, 5.0, 3.0])


class Faulty(sm.Circulant):
    """A circulant whose faults are given by name; T and conj keep them."""

    __slots__ = ()
    fault = ""

    def matvec(self, x: Any, /, *, out: Any = None) -> Any:
        y = super().matvec(x, out=out)
        return y.copy() if self.fault == "out" else y

    def _transpose(self) -> Any:
        if self.fault == "kind":
            return sm.Circulant(self.c)._transpose()
        return type(self)(self.c if self.fault == "transpose" else np.roll(self.c[::-1], 1))

    def _matvec(self, x: Any, xp: Any) -> Any:
        y = super()._matvec(x.real if self.fault == "real" else x, xp)
        return y[..., ::-1] if self.fault == "matvec" else y

    def _rmatvec(self, y: Any, xp: Any) -> Any:
        x = self._matvec(y, xp) if self.fault == "rmatvec" else super()._rmatvec(y, xp)
        return 2 * x if self.fault == "real vectors" and not np.iscomplexobj(y) else x

    def _diagonal(self, method: str, xp: Any) -> Any:
        return super()._diagonal(method, xp) * (2 if self.fault == "diagonal" else 1)

    def _svdvals(self, xp: Any) -> Any:
        return super()._svdvals(xp) + (self.fault == "svdvals")

    def _frobenius(self, xp: Any) -> Any:
        return super()._frobenius(xp) * {"norm": 2, "nan": np.nan}.get(self.fault, 1)

    def _solve(self, b: Any, xp: Any) -> Any:
        return super()._solve(b, xp) * (2 if self.fault == "solve" else 1)

    def _to_dense(self, like: Any) -> Any:
        dense = super()._to_dense(like)
        return dense.astype("float32") if self.fault == "dtype" else dense

    def __mul__(self, factor: Any) -> Any:
        if self.fault == "imaginary":
            factor = factor.real
        return super().__mul__(2 * factor if self.fault == "multiple" else factor)

    __rmul__ = __mul__

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)(self.c + (self.fault == "copy"))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("matvec", r"matvec of float64 \(4,\): off by"),
        ("rmatvec", r"rmatvec of float64 \(4,\): off by"),
        ("real", r"matvec makes float64 of complex128"),
        ("transpose", r"rmatvec of float64 \(4,\): off by"),
        ("diagonal", r"diagonal: off by"),
        ("svdvals", r"svdvals: off by"),
        ("norm", r"norm\(fro\): off by"),
        ("solve", r"solve: off by"),
        ("dtype", r"to_dense has dtype float32, the operator float64"),
        ("multiple", r"2 \* op: off by"),
        ("copy", r"a copy: off by"),
        ("kind", r"T is a Circulant"),
        ("nan", r"norm\(fro\): off by nan"),
        ("out", r"matvec does not return out"),
        ("imaginary", r"op \* \(1 \+ 2j\) is real where complex numbers are due"),
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


def test_the_adjoint_test_finds_what_is_wrong_for_real_vectors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Faulty, "fault", "real vectors")
    assert sm.testing.adjoint_error(Faulty(C), rng=0) > 1e-3


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1e19), ("float32", 1e-30), ("float64", 1e155), ("float64", 1e-170)]
)
def test_the_adjoint_test_does_not_depend_on_the_scale(
    dtype: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sm.Circulant, "_rmatvec", sm.Circulant._matvec)
    found = [sm.testing.adjoint_error(sm.Circulant((s * C).astype(dtype)), rng=0) for s in (1.0, scale)]
    assert found[0] > 1e-2
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e150, 1e300])
def test_operators_of_any_scale_obey_the_laws(scale: float) -> None:
    sm.testing.check_operator(sm.Circulant(scale * C), scale * scipy.linalg.circulant(C), rng=0)
    with pytest.raises(AssertionError, match="to_dense is not the dense matrix"):
        sm.testing.check_operator(sm.Circulant(scale * C), scale * scipy.linalg.circulant(C + 1e-3), rng=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [10.0, 0.1])
def test_determinants_that_are_out_of_range_are_no_fault(
    dtype: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = np.full(400, size, dtype)
    sm.testing.check_operator(sm.Diagonal(d), np.diag(d.astype(float)), rng=0)
    monkeypatch.setattr(sm.Diagonal, "_determinant_factors", lambda self, *_: 2 * self.d)
    with pytest.raises(AssertionError, match="slogdet: off by"):
        sm.testing.check_operator(sm.Diagonal(d), np.diag(d.astype(float)), rng=0)


def test_stacks_of_none_obey_the_laws() -> None:
    empty = sm.Circulant(np.zeros((0, 3)))
    assert sm.testing.adjoint_error(empty) == 0.0
    sm.testing.check_operator(empty, np.zeros((0, 3, 3)), rng=0)


def test_a_tolerance_of_zero_is_one() -> None:
    c = np.array([1.0, 1 / 3, 0.7])
    with pytest.raises(AssertionError, match="off by"):
        sm.testing.check_operator(sm.Circulant(c), scipy.linalg.circulant(c), rng=0, rtol=0.0)
    with pytest.raises(ValueError, match="check_operator: rtol must be finite and not negative"):
        sm.testing.check_operator(sm.Circulant(c), scipy.linalg.circulant(c), rng=0, rtol=-1.0)
