"""Operators without parameters, and all that is made of them alone, work with every library as they do with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import structmat as sm
import structmat.io
from tests import backends

LEAVES: dict[str, Callable[[int], Any]] = {
    "I": sm.Identity,
    "-I/2": lambda n: -0.5 * sm.Identity(n),
    "F": sm.Fourier,
    "dct": lambda n: sm.CosineTransform(n, 4),  # symmetric, so that eigenvectors are computed of it
}

PAIRS: dict[str, Callable[[Any, Any], Any]] = {"kron": sm.Kronecker, "kron sum": sm.KroneckerSum}

METHODS: dict[str, Callable[[Any, Any], Any]] = {
    "matvec": lambda op, x: op.matvec(x),
    "matmul": lambda op, x: op @ x[:, None],
    "rmatvec": lambda op, x: op.rmatvec(x),
    "solve": lambda op, x: op.solve(x),
    "lstsq": lambda op, x: op.lstsq(x),
    "lstsq with damp": lambda op, x: op.lstsq(x, damp=0.5),
    "inv": lambda op, x: op.inv() @ x,
    "inverse of inv": lambda op, x: op.inv().inv().T @ x,
    "pinv": lambda op, x: op.pinv() @ x,
    "sqrtm": lambda op, x: op.sqrtm() @ x,
    "expm": lambda op, x: op.expm().H @ x,
    "logm": lambda op, x: op.logm().matvec(x),
    "power": lambda op, x: op**2 @ x,
    "funm": lambda op, x: op.funm(lambda w: w * w + 1) @ x,
    "eig": lambda op, x: op.eig().eigenvectors @ x,
    "prepare": lambda op, x: op.prepare().solve(x),
}


def compositions() -> Iterator[tuple[str, Any]]:
    for name, leaf in LEAVES.items():
        yield name, leaf(4)
        yield f"{name} + I", leaf(4) + sm.Identity(4)
        yield f"{name} @ {name}", leaf(4) @ leaf(4)
        for kind, pair in PAIRS.items():
            for other in ("I", "dct"):
                op = pair(leaf(2), LEAVES[other](2))
                yield f"{kind}({name}, {other})", op
                yield f"3 * {kind}({name}, {other}) + I / 2", 3 * op + 0.5 * sm.Identity(4)
            yield f"{kind} of sums of {name}", sm.Kronecker(pair(leaf(2), leaf(2)) + sm.Identity(4), sm.Identity(1))


def outcome(method: Callable[[Any, Any], Any], op: Any, x: Any) -> Any:
    """Return the result of a method, or the class of its error."""
    try:
        return method(op, x)
    except (NotImplementedError, np.linalg.LinAlgError) as error:
        return type(error)


def check(method: str, op: Any, x: np.ndarray, backend: backends.Backend) -> bool:
    """Compare what an operator gives for vectors of a library with what it gives for NumPy's."""
    assert op.dtype is None
    wanted, found = (outcome(METHODS[method], op, each) for each in (x, backend.asarray(x)))
    if isinstance(wanted, type):
        assert found is wanted or wanted is np.linalg.LinAlgError  # for which other libraries have infinities
        return False
    assert type(found) is type(backend.asarray(x))
    assert found.dtype == backend.asarray(wanted).dtype
    np.testing.assert_allclose(backend.to_numpy(found), wanted, rtol=0, atol=1e5 * np.finfo(x.dtype).eps)
    return True


@pytest.mark.parametrize("method", METHODS)
def test_results_are_those_of_numpy(method: str, backend: backends.Backend) -> None:
    x = np.linspace(1, 2, 4)
    chosen = [op for name, op in compositions() if not backend.compiles or name == "3 * kron sum(I, dct) + I / 2"]
    found = [check(method, op, x, backend) for op in chosen]
    assert any(found) or method == "eig"


@backends.on("torch", "array_api_strict")
def test_the_precision_is_that_of_the_vectors(backend: backends.Backend) -> None:
    K = sm.KroneckerSum(sm.Identity(2), sm.CosineTransform(2, 4)) + 2 * sm.Identity(4)
    for dtype in ("float32", "complex64"):
        for method in METHODS.keys() - {"eig"}:
            assert check(method, K, np.linspace(1, 2, 4).astype(dtype), backend)


@backends.on("torch", "array_api_strict")
@pytest.mark.parametrize(("make", "dtype"), [(sm.Kronecker, "float32"), (sm.KroneckerSum, "float64")])
def test_beside_parameters_they_take_library_and_precision_of_these(
    make: Any, dtype: str, backend: backends.Backend
) -> None:
    """Also what was computed of operators without parameters, and what has another library's number as a factor."""
    root = (sm.KroneckerSum(sm.Identity(1), sm.CosineTransform(3, 4)) + 2 * sm.Identity(3)).sqrtm()
    for part in (root, sm.CosineTransform(3, 4)):
        results = []
        for asarray in (np.asarray, backend.asarray):
            T = sm.Toeplitz(asarray(np.array([2, 1, 0], dtype)))
            K = make(T, part) + 8 * sm.Identity(9)
            x = asarray(np.linspace(1, 2, 9).astype(dtype))
            scaled = root * asarray(np.array(2, dtype))
            results.append([K.solve(x), K.inv() @ x, K.slogdet()[1], sm.solve(K, x).x, scaled.slogdet()[1]])
        for wanted, found in zip(*results, strict=True):
            assert found.dtype == backend.dtype(dtype)
            np.testing.assert_allclose(backend.to_numpy(found), wanted, rtol=1e4 * np.finfo(dtype).eps)


def test_files_hold_what_was_computed_of_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    inverse = (sm.KroneckerSum(sm.Identity(2), sm.CosineTransform(2, 4)) + 2 * sm.Identity(4)).inv()
    structmat.io.save(inverse, tmp_path / "inverse.safetensors")
    x = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(structmat.io.load(tmp_path / "inverse.safetensors", xp=torch) @ x, inverse @ x)


def test_solutions_are_differentiated_by_the_right_hand_side() -> None:
    torch = pytest.importorskip("torch")
    K = sm.KroneckerSum(sm.Identity(2), sm.Identity(2)) + 0.5 * sm.Identity(4)
    b = torch.ones(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(K.solve, b)
