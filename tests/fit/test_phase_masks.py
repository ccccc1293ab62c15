"""Products of phase masks: exact ones of unitary matrices, true errors of others, and some ports alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import unitary_group

import structmat as sm
import structmat.io
from structmat.fit import phase_mask_product
from structmat.fit._phase_masks import _device
from structmat.fit._phase_objective import PhaseObjective
from tests.cases import in_one_test


def dense_product(phases: np.ndarray, mixing: list[np.ndarray]) -> np.ndarray:
    """The product by its definition, of dense matrices."""
    product = np.diag(np.exp(1j * phases[0]))
    for mask, layer in zip(phases[1:], mixing, strict=True):
        product = product @ layer @ np.diag(np.exp(1j * mask))
    return product


def alternating_transforms(n: int, n_masks: int) -> list[np.ndarray]:
    F = scipy.linalg.dft(n, scale="sqrtn")
    return [F if k % 2 else F.conj().T for k in range(n_masks - 1)]


def true_error(product: np.ndarray, target: np.ndarray) -> float:
    """The relative error with the best global phase, by its definition."""
    overlap = np.vdot(product, target)
    turned = product * (overlap / abs(overlap) if overlap else 1.0)
    return float(np.linalg.norm(turned - target) / np.linalg.norm(target))


def objective_of(target: np.ndarray, n_masks: int, **options: Any) -> PhaseObjective:
    names = ("mixing", "inputs", "outputs", "n_ports", "adjustable", "phases")
    return _device(target.shape, n_masks, *(options.get(name) for name in names)).objective(target.astype(complex))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), n=st.integers(1, 5), n_masks=st.integers(1, 5))
def test_gradient_and_gram_matrix_are_those_of_the_residual(data: st.DataObject, n: int, n_masks: int) -> None:
    """By differences of the dense product; with few modes, missing shifters and layers of any kind as well."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    p, q = data.draw(st.integers(1, n)), data.draw(st.integers(1, n))
    target = rng.standard_normal((p, q)) + 1j * rng.standard_normal((p, q))
    adjustable = rng.random((n_masks, n)) < 0.8
    adjustable[0, 0] = True
    phases = rng.uniform(0, 6, (n_masks, n))
    inputs, outputs = rng.standard_normal((n, q)) + 0j, rng.permutation(n)[:p]
    given_layers = data.draw(st.booleans())
    mixing = [rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)) for _ in range(n_masks - 1)]
    layers = mixing if given_layers else alternating_transforms(n, n_masks)
    ends_with_transform = not given_layers and n_masks % 2 == 0
    columns = scipy.linalg.dft(n, scale="sqrtn") @ inputs if ends_with_transform else inputs
    options = {"inputs": inputs, "outputs": outputs, "n_ports": n, "adjustable": adjustable, "phases": phases}
    objective = objective_of(target, n_masks, mixing=mixing if given_layers else None, **options)
    x = objective.parameters_of(phases)
    product = dense_product(phases, layers)[outputs] @ columns
    assert objective.at(x).error == pytest.approx(true_error(product, target), rel=1e-9)

    def residual(y: np.ndarray) -> np.ndarray:
        moved = (dense_product(objective.phases_of(y), layers)[outputs] @ columns).ravel()
        overlap = np.vdot(moved, target.ravel())
        return (moved * (overlap / abs(overlap)) - target.ravel()) / np.linalg.norm(target)

    step = 1e-6
    derivatives = np.stack([(residual(x + d) - residual(x - d)) / (2 * step) for d in step * np.eye(x.size)], axis=1)
    gram, gradient = objective.at(x).normal_equations()
    size = 1 + float(np.abs(derivatives).max()) ** 2
    np.testing.assert_allclose(gradient, (derivatives.conj().T @ residual(x)).real, atol=1e-6 * size)
    # What turns with the product alone is no derivative of the residual to first order where the product is far away.
    turned = 1j * product.ravel() / (np.linalg.norm(product) or 1.0)
    overlap = np.vdot(product, target)
    turned = turned * (overlap / abs(overlap))
    shifts = objective_derivatives(objective, x, layers, outputs, columns, target)
    kept = shifts - np.multiply.outer(turned, (turned.conj() @ shifts).real)
    np.testing.assert_allclose(gram, (kept.conj().T @ kept).real, atol=1e-6 * size)


def objective_derivatives(
    objective: PhaseObjective,
    x: np.ndarray,
    layers: list[np.ndarray],
    outputs: np.ndarray,
    columns: np.ndarray,
    target: np.ndarray,
) -> np.ndarray:
    """The derivatives of the product, at the global phase of the point, by differences."""
    product = (dense_product(objective.phases_of(x), layers)[outputs] @ columns).ravel()
    overlap = np.vdot(product, target.ravel())
    factor = overlap / abs(overlap) / np.linalg.norm(target)
    step, found = 1e-6, []
    for d in 1e-6 * np.eye(x.size):
        ahead = (dense_product(objective.phases_of(x + d), layers)[outputs] @ columns).ravel()
        behind = (dense_product(objective.phases_of(x - d), layers)[outputs] @ columns).ravel()
        found.append((ahead - behind) * factor / (2 * step))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 16])
def test_random_unitary_matrices_have_two_masks_more_than_ports(n: int) -> None:
    U = unitary_group.rvs(n, random_state=n) if n > 1 else np.array([[1j]])
    fit = sm.fit_phase_masks(U, rng=0)
    assert fit.phases.shape == (n + 2, n)
    assert fit.error < 1e-10
    assert fit.fidelity == pytest.approx(1.0, abs=1e-12)
    assert isinstance(fit.operator, sm.CDDProduct)
    np.testing.assert_allclose(fit.operator.to_dense(), U, atol=1e-10)
    for factor in fit.operator.factors:  # a mask changes phases alone
        np.testing.assert_allclose(np.abs(factor.eigvals()), 1.0, atol=1e-12)
    assert fit.converged
    assert fit.status == "completed"
    assert np.all(np.diff(fit.history) <= 0)


NAMED = {
    "identity": np.eye(8),
    "reversal": np.eye(8)[::-1],
    "permutation": np.eye(8)[np.random.default_rng(0).permutation(8)],
    "shift": np.roll(np.eye(8), 1, axis=0),
    "hadamard": scipy.linalg.hadamard(8) / np.sqrt(8),
    "dft": scipy.linalg.dft(8, scale="sqrtn"),
}


@in_one_test("name", NAMED)
def test_matrices_with_structure_are_reproduced_as_well(name: str) -> None:
    fit = sm.fit_phase_masks(NAMED[name], rng=1)
    np.testing.assert_allclose(fit.operator.to_dense(), NAMED[name], atol=1e-10)


def test_any_dense_layers_mix_as_well_as_fourier_transforms() -> None:
    U, layers = unitary_group.rvs(6, random_state=0), [unitary_group.rvs(6, random_state=k) for k in range(1, 8)]
    fit = sm.fit_phase_masks(U, 8, mixing=layers, rng=0)
    assert fit.error < 1e-10
    np.testing.assert_allclose(dense_product(fit.phases, layers), U, atol=1e-10)
    np.testing.assert_allclose(fit.operator.to_dense(), U, atol=1e-10)
    one = sm.fit_phase_masks(U, 8, mixing=sm.Fourier(6), rng=0)
    np.testing.assert_allclose(dense_product(one.phases, [scipy.linalg.dft(6, scale="sqrtn")] * 7), U, atol=1e-10)


def test_a_matrix_that_is_not_unitary_gets_the_nearest_one() -> None:
    """Its unitary polar factor, and the error is the distance from that."""
    W = np.random.default_rng(0).standard_normal((6, 6))
    polar, _ = scipy.linalg.polar(W)
    fit = sm.fit_phase_masks(W, rng=0)
    expected = np.linalg.norm(polar - W) / np.linalg.norm(W)
    assert fit.error == pytest.approx(expected, rel=1e-7)
    assert fit.error == pytest.approx(true_error(fit.operator.to_dense(), W), rel=1e-12)
    assert fit.message == "the nearest matrix that masks can give"


def test_few_masks_have_a_true_error_and_say_so() -> None:
    U = unitary_group.rvs(6, random_state=0)
    fit = sm.fit_phase_masks(U, 3, rng=0, restarts=2)
    assert 0.1 < fit.error < 1.5
    assert fit.error == pytest.approx(true_error(fit.operator.to_dense(), U), rel=1e-12)
    expected = abs(np.vdot(U, fit.operator.to_dense())) ** 2 / 36
    assert fit.fidelity == pytest.approx(expected, rel=1e-12)
    assert "more masks" in fit.message


def test_few_modes_take_fewer_masks() -> None:
    """Two inputs and two outputs of six ports, which a mode converter maps to each other."""
    U = unitary_group.rvs(2, random_state=0)
    fit = sm.fit_phase_masks(U, 6, inputs=[1, 5], outputs=[0, 3], n_ports=6, rng=0)
    assert fit.error < 1e-10
    np.testing.assert_allclose(fit.operator.to_dense()[np.ix_([0, 3], [1, 5])], U, atol=1e-10)


def test_modes_may_be_any_columns() -> None:
    U, modes = unitary_group.rvs(2, random_state=0), unitary_group.rvs(5, random_state=1)
    masked = np.zeros(5, bool)
    masked[[0, 3]] = True
    again = sm.fit_phase_masks(U, 6, inputs=modes[:, :2], outputs=masked, rng=0)
    np.testing.assert_allclose((again.operator.to_dense() @ modes[:, :2])[[0, 3]], U, atol=1e-10)


def test_amplitudes_are_a_block_of_a_unitary_matrix_of_twice_the_size() -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4))
    W /= np.linalg.norm(W, 2)
    fit = sm.fit_phase_masks(W, 7, n_ports=8, rng=0)
    np.testing.assert_allclose(fit.operator.to_dense()[:4, :4], W, atol=1e-10)


def test_missing_shifters_keep_their_phases() -> None:
    rng = np.random.default_rng(0)
    adjustable = rng.random((10, 6)) < 0.85
    adjustable[:, 2] = False
    held = rng.uniform(0, 6, (10, 6))
    U = unitary_group.rvs(6, random_state=0)
    fit = sm.fit_phase_masks(U, adjustable=adjustable, phases=held, restarts=4, rng=0)
    np.testing.assert_allclose(fit.phases[~adjustable], held[~adjustable] % (2 * np.pi))
    assert fit.error < 1e-10
    assert true_error(fit.operator.to_dense(), U) < 1e-10


def test_a_fit_goes_on_from_the_phases_of_a_device_that_is_off() -> None:
    """The layers of the device differ from the design: the phases of the design are a good start for them."""
    U, n_masks = unitary_group.rvs(8, random_state=0), 10
    design = sm.fit_phase_masks(U, n_masks, mixing=sm.Fourier(8), rng=0)
    rng = np.random.default_rng(1)
    F = scipy.linalg.dft(8, scale="sqrtn")
    noise = [rng.standard_normal((8, 8)) + 1j * rng.standard_normal((8, 8)) for _ in range(n_masks - 1)]
    layers = [F @ scipy.linalg.expm(0.01 * (E - E.conj().T)) for E in noise]
    before = true_error(dense_product(design.phases, layers), U)
    fit = sm.fit_phase_masks(U, phases=design.phases, mixing=layers)
    assert before > 1e-2
    assert fit.error < 1e-10
    assert fit.start == "given phases"
    moved = np.angle(np.exp(1j * (fit.phases - design.phases)))
    assert np.abs(moved).mean() < 0.5


def test_beyond_the_limit_of_memory_all_steps_are_of_first_order() -> None:
    U = unitary_group.rvs(8, random_state=0)
    phases = set()
    fit = sm.fit_phase_masks(U, rng=0, memory_limit=1e4, callback=lambda state: phases.add(state.phase))
    assert phases == {"polish"}
    assert fit.error < 1e-10


def test_large_fits_begin_with_first_order_and_end_with_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structmat.fit._phase_masks._FROM_THE_START", 10)
    phases: list[str] = []
    fit = sm.fit_phase_masks(unitary_group.rvs(8, random_state=0), rng=0, callback=lambda s: phases.append(s.phase))
    assert fit.error < 1e-10
    assert phases == sorted(phases)
    assert set(phases) == {"polish", "second order"}
    assert len(fit.history) == len(phases) + 1 == fit.n_iter + 1


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_fits_come_back_in_the_library_of_the_target(library: str) -> None:
    xp = pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[library])
    U = unitary_group.rvs(4, random_state=0).astype(np.complex64)
    fit = sm.fit_phase_masks(xp.asarray(U), rng=0)
    assert str(fit.phases.dtype).endswith("float32")
    assert fit.error < 1e-6
    np.testing.assert_allclose(np.asarray(fit.operator.to_dense()), U, atol=3e-6)
    assert fit.message == "the nearest matrix that masks can give"
    assert fit.start == "random phases 1"  # the rounding of the target is no reason for another start


def test_gradients_of_the_fidelity_reach_the_phases_in_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    U, phases = unitary_group.rvs(5, random_state=0), rng.uniform(0, 6, (4, 5))
    leaf = torch.tensor(phases, requires_grad=True)
    P = phase_mask_product(leaf).to_dense()
    fidelity = (torch.as_tensor(U).conj() * P).sum().abs() ** 2 / 25
    fidelity.backward()

    def at(moved: np.ndarray) -> float:
        return float(abs(np.vdot(U, phase_mask_product(moved).to_dense())) ** 2 / 25)

    step = 1e-6
    expected = [(at(phases + d) - at(phases - d)) / (2 * step) for d in step * np.eye(20).reshape(20, 4, 5)]
    np.testing.assert_allclose(leaf.grad.numpy().ravel(), expected, atol=1e-8)


def test_files_give_the_fit_back(tmp_path: Path) -> None:
    fit = sm.fit_phase_masks(np.eye(3), rng=0)
    structmat.io.save(fit, tmp_path / "masks.safetensors")
    again = structmat.io.load(tmp_path / "masks.safetensors")
    assert isinstance(again, sm.PhaseMaskFit)
    np.testing.assert_array_equal(again.phases, fit.phases)
    assert again.to_dict() == fit.to_dict()
    assert structmat.io.describe(tmp_path / "masks.safetensors")["fit"]["error"] == fit.error


def test_plots_and_text() -> None:
    pytest.importorskip("matplotlib")
    fit = sm.fit_phase_masks(np.eye(3), rng=0)
    assert fit.plot().get_yscale() == "log"
    image = fit.plot_phases().images[0].get_array()
    np.testing.assert_allclose(image, fit.phases)
    assert "5 of 3 phases" in repr(fit)


def test_limits_and_interrupts_return_the_best_so_far() -> None:
    U = unitary_group.rvs(16, random_state=0)
    begun = time.process_time()
    stopped = sm.fit_phase_masks(U, 4, rng=0, restarts=1000, time_limit=0.05)
    assert time.process_time() - begun < 1.0
    assert stopped.status == "time limit"
    assert stopped.error == pytest.approx(true_error(stopped.operator.to_dense(), U), rel=1e-12)

    def after_three(state: Any) -> None:
        if state.iteration == 3:
            raise StopIteration

    short = sm.fit_phase_masks(U, rng=0, callback=after_three)
    assert short.status == "callback"
    assert short.n_iter == 3

    def interrupt(state: Any) -> None:
        raise KeyboardInterrupt

    assert sm.fit_phase_masks(U, rng=0, callback=interrupt, on_interrupt="return").status == "interrupted"
    with pytest.raises(KeyboardInterrupt):
        sm.fit_phase_masks(U, rng=0, callback=interrupt)


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((EYE, 0), {}, ValueError, "n_masks must be at least 1"),
        ((EYE, 2.5), {}, TypeError, "n_masks"),
        ((np.full((3, 3), np.nan),), {}, ValueError, "target must be finite"),
        ((EYE * 0,), {}, ValueError, "target must not be zero"),
        ((np.zeros((0, 3)),), {}, ValueError, "target must be a non-empty matrix"),
        ((np.ones(3),), {}, ValueError, "target must be a non-empty matrix"),
        ((EYE,), {"n_ports": 6}, ValueError, "n_masks must be given for a target of 3 x 3 in 6 ports"),
        ((EYE, 4), {"n_ports": 2}, ValueError, "target must have at most 2 rows and columns"),
        ((EYE, 4), {"inputs": [0, 1]}, ValueError, "inputs must be 3 different ports of 0 to 2"),
        ((EYE, 4), {"inputs": [0, 1, 1]}, ValueError, "inputs must be 3 different ports"),
        ((EYE, 4), {"outputs": [0.0, 1.0, 2.0]}, TypeError, "outputs must be indices of ports"),
        ((EYE, 4), {"outputs": np.eye(4)[:, :2]}, ValueError, "outputs must be the columns of a matrix"),
        ((EYE, 4), {"mixing": np.eye(4)[:, :3]}, ValueError, "mixing must have layers of shape"),
        ((EYE, 4), {"mixing": [EYE, EYE]}, ValueError, "mixing must be one layer, or 3 for 4 masks, got 2"),
        ((EYE, 4), {"mixing": np.full((3, 3), np.inf)}, ValueError, "mixing must be finite"),
        ((EYE, 4), {"adjustable": np.ones((4, 3))}, TypeError, "adjustable must hold booleans"),
        ((EYE, 4), {"adjustable": np.ones((3, 3), bool)}, ValueError, "adjustable must have shape"),
        ((EYE, 4), {"adjustable": np.zeros((4, 3), bool)}, ValueError, "True for at least one phase"),
        ((EYE, 4), {"phases": np.zeros((3, 3))}, ValueError, "phases must have shape"),
        ((EYE,), {"phases": np.zeros((3, 3)) * 1j}, TypeError, "phases must be real"),
        ((EYE,), {"restarts": 0}, ValueError, "restarts must be at least 1"),
        ((EYE,), {"memory_limit": -1}, ValueError, "memory_limit"),
        ((EYE,), {"on_interrupt": "stop"}, ValueError, "on_interrupt"),
    ],
)
def test_bad_input_is_refused(arguments: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        sm.fit_phase_masks(*arguments, **options)
