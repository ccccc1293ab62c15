"""Try an installed structmat: `python try_installed.py`, in a folder without the sources.

It holds some operators to every law of `structmat.testing`, on NumPy and on those of torch and JAX that are installed,
takes a derivative by each, fits a matrix, saves and reads an adapter, and calls the command. What is not installed is
left out and named. An error ends it. It takes less than a minute.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy.linalg

import structmat as sm

COLUMN = np.array([4.0, 1.0, 0.5, 0.25, 0.125])
KERNEL = np.array([3.0, 1.0, 0.0, 1.0])


def is_installed(*names: str) -> bool:
    """Say whether all of these modules can be imported, and name what is left out otherwise."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        print(f"left out, as {', '.join(missing)} is not installed")
    return not missing


def check_package() -> None:
    """The installed files are those of a wheel: typed, with metadata of the same version, and nothing beside."""
    folder = Path(sm.__file__).parent
    assert "site-packages" in folder.parts, folder
    assert (folder / "py.typed").exists()
    assert metadata.version("structmat") == sm.__version__
    assert not any((folder.parent / name).exists() for name in ("tests", "docs", "benchmarks"))


def check_operators(as_array) -> None:
    """Some operators, with every law."""
    circulant, toeplitz = scipy.linalg.circulant(KERNEL), scipy.linalg.toeplitz(COLUMN)
    series = sm.Toeplitz(as_array(COLUMN))
    for operator, dense in [
        (sm.Circulant(as_array(KERNEL)), circulant),
        (series, toeplitz),
        (series.prepare(), toeplitz),
        (series + sm.Diagonal(as_array(COLUMN)), toeplitz + np.diag(COLUMN)),
        (sm.Kronecker(sm.Circulant(as_array(KERNEL)), series), np.kron(circulant, toeplitz)),
        (sm.laplacian(5, "zero", like=as_array(COLUMN)), -scipy.linalg.toeplitz([2.0, -1.0, 0.0, 0.0, 0.0])),
    ]:
        sm.testing.check_operator(operator, dense, rng=0)


def check_torch() -> None:
    """Operators of tensors, and the derivative of a solution."""
    import torch

    check_operators(torch.asarray)
    column = torch.asarray(COLUMN).requires_grad_()
    total = sm.Toeplitz(column).solve(torch.ones(5, dtype=torch.float64)).sum()
    total.backward()
    check_derivative(column.grad.numpy())


def check_jax() -> None:
    """Operators of arrays of JAX, and the derivative of a solution under `jit`."""
    import jax

    jax.config.update("jax_enable_x64", True)
    check_operators(jax.numpy.asarray)
    total = jax.jit(jax.grad(lambda column: sm.Toeplitz(column).solve(jax.numpy.ones(5)).sum()))
    check_derivative(np.asarray(total(jax.numpy.asarray(COLUMN))))


def check_derivative(given: np.ndarray) -> None:
    """Of sum(T^-1 1) by the column, from its definition: -x' (dT / dc_k) x."""
    x = np.linalg.solve(scipy.linalg.toeplitz(COLUMN), np.ones(5))
    expected = [-x @ scipy.linalg.toeplitz(unit) @ x for unit in np.eye(5)]
    np.testing.assert_allclose(given, expected, rtol=1e-10)


def check_fit() -> None:
    """A product of three factors is found again."""
    rng = np.random.default_rng(0)
    matrix = np.diag(rng.normal(size=8)) @ scipy.linalg.circulant(rng.normal(size=8)) @ np.diag(rng.normal(size=8))
    assert sm.fit_cdd(matrix, rng=0).error < 1e-10


def check_adapter(folder: Path) -> None:
    """An adapter is saved and read by PEFT."""
    import torch
    from peft import PeftModel, get_peft_model

    from structmat.peft import CDDConfig

    def frozen() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(8, 8))

    model = get_peft_model(frozen(), CDDConfig(target_modules=["0"]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    model.save_pretrained(folder)
    x = torch.ones(1, 8)
    torch.testing.assert_close(PeftModel.from_pretrained(frozen(), folder)(x), model(x))


def check_command(folder: Path) -> None:
    """The command says its version and fits a matrix in a file."""
    command = Path(sys.executable).with_name("structmat")
    said = subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout
    assert said.strip() == f"structmat {sm.__version__}", said
    np.save(folder / "matrix.npy", scipy.linalg.circulant(KERNEL))
    subprocess.run([command, "fit", "matrix.npy", "--plot", "fit.png"], check=True, cwd=folder, capture_output=True)
    assert (folder / "fit.png").exists()


def main() -> None:
    """Try all that is installed."""
    sm.show_config()
    check_package()
    check_operators(np.asarray)
    check_fit()
    if is_installed("torch"):
        check_torch()
    if is_installed("jax"):
        check_jax()
    with tempfile.TemporaryDirectory() as name:
        if is_installed("torch", "peft", "transformers"):
            check_adapter(Path(name) / "adapter")
        if is_installed("cyclopts", "rich", "matplotlib"):
            check_command(Path(name))
    print("all is well")


if __name__ == "__main__":
    main()
