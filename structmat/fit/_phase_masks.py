"""`fit_phase_masks`: a matrix as a product of phase masks and fixed mixing layers, by steps of second order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy  # Its `fft` is imported on first use.

from structmat._arguments import (
    as_floating,
    as_matrix,
    integer,
    names_arguments,
    non_negative,
    one_of,
    optional_function,
    positive,
    random_generator,
)
from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import complex_partner, precision_of
from structmat._arrays.libraries import device_of, is_array, namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._files import counted
from structmat._progress import shown_progress
from structmat.fit._control import Control, FitProgress, StoppableSearch
from structmat.fit._lbfgs import lbfgs
from structmat.fit._levenberg_marquardt import levenberg_marquardt
from structmat.fit._phase_mask_fit import PhaseMaskFit
from structmat.fit._phase_objective import MixingLayer, PhaseObjective
from structmat.fit._problem import Found
from structmat.operators import CDDProduct, Dense, Diagonal, LinearOperator, SpectralCirculant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, ArrayLike

__all__ = ["fit_phase_masks", "phase_mask_product"]

_OWNER = "fit_phase_masks"

_STARTS = 5
"""So many random starts are tried at most. With N + 2 masks the first ends at a random unitary nearly always."""

_FROM_THE_START = 1500
"""Up to so many phases steps of second order are taken from the start: a factorisation then costs less than the
evaluations of L-BFGS that it saves."""

_NEAR = 1e-2
"""At this error steps of second order take over from L-BFGS: from there they double the digits each time."""

_WINDOW = {"polish": 200, "second order": 60}
"""A run is given up when so many iterations of its kind have gained less than `_LEAST_GAIN`."""

_LEAST_GAIN = 1e-2
"""The share of the error that a window of iterations has to gain."""

_ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""The error of a product and the bound below it differ by this much at the nearest matrix itself."""

_UNITARY = 1e-10
"""Layers this near to unitary ones are taken for unitary when the least error is computed that any product has."""


def phase_mask_product(phases: ArrayLike, mixing: Any = None) -> LinearOperator:
    """Return the product of phase masks with given phases and of the mixing layers between them.

    Parameters
    ----------
    phases : array, shape (n_masks, n)
        Real, in radians, of any library that follows the array API standard. Gradients of torch and JAX reach them.
    mixing : array, LinearOperator or sequence of these, optional
        The layers, as for `fit_phase_masks`.

    Returns
    -------
    LinearOperator
        ``diag(exp(i phases[0])) M_1 diag(exp(i phases[1])) M_2 ...``, n x n. Without `mixing` a `CDDProduct` of
        diagonals and circulants in turn, the circulants with the eigenvalues ``exp(i phases[k])``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If `phases` is no matrix, or the layers are not n x n, or not one between each two masks.

    See Also
    --------
    fit_phase_masks : Finds the phases for a matrix.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.fit.phase_mask_product(np.zeros((3, 4)))
    CDDProduct(n_factors=3, n_parameters=12, shape=(4, 4), dtype=complex128, device=cpu)
    """
    owner = "phase_mask_product"
    angles = as_floating(phases, owner, "phases")
    if angles.ndim != 2 or 0 in angles.shape:
        raise ArgumentValueError(owner, "phases", f"must have shape (n_masks, n), got {tuple(angles.shape)}")
    xp = namespace(angles)
    if xp.isdtype(angles.dtype, "complex floating"):
        raise ArgumentTypeError(owner, "phases", "must be real, got complex numbers")
    n_masks, n = angles.shape
    shifts = xp.exp(1j * xp.astype(angles, complex_partner(angles.dtype, xp)))
    if mixing is None:
        masks = (SpectralCirculant(shifts[k], n, real=False) if k % 2 else Diagonal(shifts[k]) for k in range(n_masks))
        return CDDProduct(tuple(masks))
    layers = _layers_of(mixing, n_masks, n, owner)
    factors: list[LinearOperator] = [Diagonal(shifts[0])]
    for k, layer in enumerate(layers, 1):
        dense = layer if isinstance(layer, LinearOperator) else Dense(_like(layer, shifts))
        factors += [dense, Diagonal(shifts[k])]
    return reduce(lambda left, right: left @ right, factors)


@names_arguments
def fit_phase_masks(
    target: ArrayLike,
    n_masks: int | None = None,
    *,
    mixing: Any = None,
    inputs: ArrayLike | None = None,
    outputs: ArrayLike | None = None,
    n_ports: int | None = None,
    adjustable: ArrayLike | None = None,
    phases: ArrayLike | None = None,
    restarts: int | None = None,
    rng: np.random.Generator | int | None = None,
    target_error: float = 1e-12,
    max_iter: int = 20_000,
    time_limit: float | None = None,
    memory_limit: float = 2**31,
    callback: Callable[[FitProgress], object] | None = None,
    on_interrupt: Literal["raise", "return"] = "raise",
) -> PhaseMaskFit:
    """Fit a matrix by a product of phase masks, which change phases alone, and of fixed mixing layers between them.

    This is how linear optics builds a unitary matrix: a mask delays the light of each port, the layer between two masks
    mixes all ports. Minimises ``norm(P - T)`` up to a global phase over the phases of the masks. N + 1 masks have as
    many phases as a unitary matrix of N ports has numbers; with N + 2 a random unitary matrix is reproduced to rounding
    from nearly every start.

    Parameters
    ----------
    target : array_like, shape (p, q)
        The matrix T, unitary or not: nested lists or an array of any library that follows the array API standard. The
        fit runs in NumPy on the CPU.
    n_masks : int, optional
        Number of masks. By default as many as `phases` has, else N + 2, for a target over all ports.
    mixing : array, LinearOperator or sequence of these, optional
        The layer between all masks, (N, N), or the ``n_masks - 1`` layers one by one. By default the inverse and the
        forward Fourier transform in turn, and the forward one behind the last of an even number of masks: then the
        product is one of diagonals and circulants, ``D C D C ...``, whose entries and eigenvalues are the masks. For
        layers that are all forward transforms pass ``structmat.Fourier(N)``. Layers that are known to be off, as those
        of a device are, are passed as they are.
    inputs, outputs : array, optional
        What of the N ports counts: indices or a mask of booleans, or modes, the columns of a matrix (N, q) or (N, p).
        By default as many ports as the target has columns or rows, the first ones. ``outputs^H P inputs`` is compared
        with the target.
    n_ports : int, optional
        The number of ports N. By default that of `mixing`, of the modes or of `phases`, or else the larger side of the
        target. Any matrix of spectral norm one or less is a block of a unitary matrix of twice its size: with ``n_ports
        = 2 N`` amplitudes and phases can both be had; divide the matrix by its spectral norm first.
    adjustable : array of bool, shape (n_masks, N), optional
        Which phases can be changed: False where a phase shifter is missing. By default all.
    phases : array, shape (n_masks, N), optional
        Phases to start from, as a device has them. Those that are not adjustable keep these values, by default zero.
    restarts : int, optional
        The most starting points with random phases: by default 5, and none if `phases` are given. The fit ends at the
        first that reaches `target_error`.
    rng : numpy.random.Generator or int, optional
        Source of the random phases. The same seed gives the same fit on the same machine.
    target_error : float, default 1e-12
        The relative error at which the target counts as reproduced. If it is not unitary, this much more than the error
        of the nearest matrix that any masks give.
    max_iter : int, default 20000
        Largest number of iterations from one starting point.
    time_limit : float, optional
        Seconds of processor time, as ``time.process_time`` has it, after which the best masks so far are returned.
    memory_limit : float, default 2**31
        Bytes that the matrices of a step of second order may take: two of ``(n_masks N)^2`` numbers of 8 bytes, 0.3 GB
        for 64 ports and 66 masks, 4.4 GB for 128 ports. Beyond it all steps are those of L-BFGS.
    callback : callable, optional
        Called with a `FitProgress` after every iteration. It may raise `StopIteration` to end the fit. Without one,
        notebooks and sessions of Python on a terminal show the state after two seconds.
    on_interrupt : {"raise", "return"}, default "raise"
        What `KeyboardInterrupt` does: "return" ends the fit as a time limit does.

    Returns
    -------
    PhaseMaskFit
        The phases, with the library and device of the target, the operator, the error and the fidelity. Where all
        phases of one mask are adjustable the operator has the global phase of the target.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the target is empty, zero or not finite, shapes do not go together, `n_masks` is missing for a target over
        some ports, no phase is adjustable, or an argument is out of range.

    See Also
    --------
    phase_mask_product : The product for given phases, with gradients.
    fit_cdd : Products of diagonals and circulants of any entries.

    Notes
    -----
    Steps are those of Levenberg and Marquardt, one Cholesky factorisation of ``n_masks N`` unknowns each, from the
    start for up to 1,500 phases, and else from where L-BFGS has come to an error of 1 %. Neither forms derivatives one
    by one: a gradient costs as much as two products over all ports, ``O(n_masks N^2 log N)`` operations for Fourier
    transforms, and the Gram matrix of the derivatives is known in closed form.

    The least number of masks for a generic unitary matrix is N + 1 by counting: ``n_masks N`` phases, of which
    ``n_masks - 1`` repeat the global phase, for N^2 numbers. With N + 1 masks a start in two or three ends at the
    target up to N = 16. It is not proved that any number below 2 N + 5 suffices for all unitary matrices [2]_.

    References
    ----------
    .. [1] M. Huhtanen, A. Perämäki, Factoring matrices into the product of circulant and diagonal matrices, J. Fourier
       Anal. Appl. 21, 2015, 1018-1033.
    .. [2] V. López Pastor, J. Lundeen, F. Marquardt, Arbitrary optical wave evolution with Fourier transforms and phase
       masks, Opt. Express 29, 2021, 38441-38450, arXiv:1912.04721: 6 N + 1 masks by construction; 2 N + 5 in
       arXiv:2508.20010.
    .. [3] M. Y. Saygin et al., Robust architecture for programmable universal unitaries, Phys. Rev. Lett. 124, 2020,
       010501: N + 1 masks between any dense layers, by numerical search.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> hadamard = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]) / 2
    >>> fit = sm.fit_phase_masks(hadamard, rng=0)
    >>> fit.operator
    CDDProduct(n_factors=6, n_parameters=24, shape=(4, 4), dtype=complex128, device=cpu)
    >>> bool(np.allclose(fit.operator.to_dense(), hadamard))
    True
    """
    begun, spent = time.monotonic(), time.process_time()
    matrix = as_matrix(target, _OWNER, "target")
    values = to_numpy(matrix).astype(np.complex128)
    if not np.isfinite(values).all():
        raise ArgumentValueError(_OWNER, "target", "must be finite, got NaN or infinity")
    if not values.any():
        raise ArgumentValueError(_OWNER, "target", "must not be zero, of which no phases are better than others")
    device = _device(values.shape, n_masks, mixing, inputs, outputs, n_ports, adjustable, phases)
    control = Control(
        max_iter=integer(max_iter, _OWNER, "max_iter"),
        tol=non_negative(target_error, _OWNER, "target_error"),
        returns_best=one_of(on_interrupt, _OWNER, "on_interrupt", ("raise", "return")) == "return",
        deadline=None if time_limit is None else spent + non_negative(time_limit, _OWNER, "time_limit"),
        callback=optional_function(callback, _OWNER, "callback"),
    )
    limit = positive(memory_limit, _OWNER, "memory_limit")
    most = (_STARTS if phases is None else 0) if restarts is None else integer(restarts, _OWNER, "restarts", least=0)
    if phases is None and not most:
        raise ArgumentValueError(_OWNER, "restarts", "must be at least 1 without phases to start from")
    generator = random_generator(rng, _OWNER)

    objective = device.objective(values)
    starts = device.starts(given=phases is not None, most=most, rng=generator)
    search = PhaseMaskSearch(objective, control, starts, bound=device.least_error(values), memory_limit=limit)
    with shown_progress(control.callback, None) as control.callback:
        found = search.result()

    best = np.asarray(found.vectors[0])
    whole = device.adjustable.all(axis=1)
    if whole.any():
        best[whole.argmax()] += np.angle(objective.at(objective.parameters_of(best)).factor)
    xp = namespace(matrix)
    stored = xp.asarray(np.mod(best, 2.0 * np.pi), device=device_of(matrix))
    stored = xp.astype(stored, precision_of(matrix.dtype, xp))
    reached = objective.at(objective.parameters_of(to_numpy(stored).astype(np.float64)))
    return PhaseMaskFit(
        operator=phase_mask_product(stored, mixing),
        phases=stored,
        error=reached.error,
        fidelity=reached.fidelity(),
        n_iter=len(found.history) - 1,
        converged=found.converged,
        history=np.array([*found.history[:-1], reached.error]),
        start=found.start,
        status=control.status,
        message=_message(search, found, control),
        seconds=time.monotonic() - begun,
    )


def _message(search: PhaseMaskSearch, found: Found, control: Control) -> str:
    """Return in words how a fit ended."""
    if control.status != "completed":
        return f"{control.status}: the best so far"
    if found.exact:
        nearest = search.bound > control.tol
        return "the nearest matrix that masks can give" if nearest else "the target to the error asked for"
    tried = counted(search.tried, "start")
    return f"a local minimum, the best of {tried}: more masks or more restarts may do better"


class PhaseMaskSearch(StoppableSearch):
    """Steps down from one start after the other, until one ends at the target.

    Parameters
    ----------
    objective : PhaseObjective
    control : Control
        Of which `tol` is the error asked for.
    starts : iterator of (str, ndarray)
        Names and phases; at least one.
    bound : float
        The least relative error that any product has.
    memory_limit : float
        Bytes for the matrices of the steps of second order.
    """

    def __init__(
        self,
        objective: PhaseObjective,
        control: Control,
        starts: Iterator[tuple[str, NDArray[np.float64]]],
        *,
        bound: float,
        memory_limit: float,
    ) -> None:
        super().__init__(control)
        self.objective, self.starts, self.bound = objective, starts, bound
        self.fits = 16 * objective.n_parameters**2 <= memory_limit
        # The error of the nearest matrix is itself known but for rounding, absolute and relative.
        rounding = _ROUNDING + 1e-9 * bound if bound else 0.0
        self.asked = float(np.hypot(bound, control.tol)) + rounding
        self.tried = 0
        self._best: Found | None = None

    @property
    def best(self) -> Found:
        """The best masks so far."""
        assert self._best is not None  # noqa: S101  # `run` sets it before it looks at any limit
        return self._best

    @property
    def has_product(self) -> bool:
        """Whether a start was looked at."""
        return self._best is not None

    def run(self) -> None:
        """Go down from the starts, until the error is the one asked for."""
        for name, phases in self.starts:
            self.tried += 1
            self._descend(name, self.objective.parameters_of(phases))
            if self.best.exact:
                return

    def _descend(self, name: str, x: NDArray[np.float64]) -> None:
        """Go down from one start, and keep the result if it is the best so far."""
        history = [self.objective.at(x).error]
        current = x

        def keep() -> None:
            exact = history[-1] <= self.asked
            if self._best is None or history[-1] < self._best.history[-1]:
                vectors = [self.objective.phases_of(current)]
                self._best = Found(name, vectors, list(history), converged=exact, exact=exact)

        def after_iteration(phase: str, until: float) -> Callable[[NDArray[Any], float], None]:
            first = len(history)

            def told(parameters: NDArray[Any], error: float) -> None:
                nonlocal current
                current = np.array(parameters, dtype=np.float64)
                history.append(error)
                keep()
                n_masks, most = len(self.objective.fixed_phases), self.control.max_iter
                self.control.report(name, len(history) - 1, error, phase=phase, n_factors=n_masks, most=most)
                window = _WINDOW[phase]
                stuck = len(history) - first > window and history[-1 - window] - error < _LEAST_GAIN * error
                if error <= until or stuck or len(history) > self.control.max_iter:
                    raise StopIteration

            return told

        keep()
        self.control.check()
        ended = history[-1] <= self.asked
        if not ended and not (self.fits and x.size <= _FROM_THE_START):
            until = max(self.asked, _NEAR) if self.fits else self.asked
            ended = lbfgs(self.objective, x, self.control.max_iter, after_iteration("polish", until))
        if self.fits and history[-1] > self.asked:
            left = max(self.control.max_iter + 1 - len(history), 0)
            ended = levenberg_marquardt(self.objective.at, current, left, after_iteration("second order", self.asked))
        if ended and self._best is not None and self._best.history[-1] == history[-1]:
            self._best = self._best._replace(converged=True)


# The arguments


@dataclass(frozen=True)
class _Device:
    """What a fit is asked for, apart from the target: the layers, the ports that count, the phases that can be set."""

    layers: Sequence[MixingLayer]
    unitary: bool
    """Whether the mixing layers are."""
    rows: NDArray[Any]
    columns: NDArray[Any]
    phases: NDArray[np.float64]
    adjustable: NDArray[np.bool_]

    def objective(self, target: NDArray[Any]) -> PhaseObjective:
        """Return the error of products as a function of the phases."""
        return PhaseObjective(target, self.layers, self.rows, self.columns, self.phases, self.adjustable)

    def starts(self, *, given: bool, most: int, rng: np.random.Generator) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Yield the names and phases of the starting points."""
        if given:
            yield "given phases", self.phases
        for number in range(1, most + 1):
            drawn = rng.uniform(0.0, 2.0 * np.pi, self.phases.shape)
            yield f"random phases {number}", np.where(self.adjustable, drawn, self.phases)

    def least_error(self, target: NDArray[Any]) -> float:
        """Return a bound below the relative error of every product, zero where none is known.

        A block of a unitary matrix has singular values of at most one, and all of them are one if it has all rows or
        all columns. The nearest such matrix has the same singular vectors as the target (Mirsky's theorem).
        """
        if not (self.unitary and _is_isometry(self.rows.T) and _is_isometry(self.columns)):
            return 0.0
        values = np.linalg.svd(target, compute_uv=False)
        n = self.rows.shape[1]
        is_whole = (len(self.rows) == n and values.size == target.shape[1]) or (
            self.columns.shape[1] == n and values.size == target.shape[0]
        )
        excess = values - 1.0 if is_whole else np.maximum(values - 1.0, 0.0)
        bound = float(np.linalg.norm(excess) / np.linalg.norm(values))
        return bound if bound > _UNITARY else 0.0


def _device(
    shape: tuple[int, ...],
    n_masks: int | None,
    mixing: Any,
    inputs: Any,
    outputs: Any,
    n_ports: int | None,
    adjustable: Any,
    phases: Any,
) -> _Device:
    """Check what a fit is asked for."""
    given = None if phases is None else _real_matrix(phases, "phases")
    n = _number_of_ports(shape, mixing, (outputs, inputs), n_ports, given)
    if n_masks is None and given is not None:
        count = len(given)
    elif n_masks is None:
        if shape != (n, n):
            text = f"must be given for a target of {shape[0]} x {shape[1]} in {n} ports; N + 2 do for a whole unitary"
            raise ArgumentValueError(_OWNER, "n_masks", text)
        count = n + 2
    else:
        count = integer(n_masks, _OWNER, "n_masks")
    if given is not None and given.shape != (count, n):
        raise ArgumentValueError(_OWNER, "phases", f"must have shape (n_masks, N) = {count, n}, got {given.shape}")
    kept = np.ones((count, n), bool) if adjustable is None else _booleans(adjustable, (count, n))
    rows = _modes(outputs, n, shape[0], "outputs").conj().T
    columns = _modes(inputs, n, shape[1], "inputs")
    layers: list[MixingLayer]
    if mixing is None:
        layers = [_FourierLayer(inverse=k % 2 == 0) for k in range(count - 1)]
        if count % 2 == 0:
            columns = scipy.fft.fft(columns, axis=0, norm="ortho")
        unitary = True
    else:
        given_layers = _layers_of(mixing, count, n, _OWNER)
        distinct = {id(layer): layer for layer in given_layers}
        wrapped = {key: _layer(layer) for key, layer in distinct.items()}
        layers = [wrapped[id(layer)] for layer in given_layers]
        unitary = all(_is_unitary(layer, n) for layer in wrapped.values())
    return _Device(layers, unitary, rows, columns, np.zeros((count, n)) if given is None else given, kept)


def _number_of_ports(
    shape: tuple[int, ...], mixing: Any, modes: tuple[Any, Any], n_ports: int | None, phases: NDArray[Any] | None
) -> int:
    """Return the number of ports that one of the arguments tells; all that do must agree, as is checked later."""
    if n_ports is not None:
        n = integer(n_ports, _OWNER, "n_ports")
    elif mixing is not None:
        first = mixing[0] if isinstance(mixing, (list, tuple)) and len(mixing) else mixing
        n = int(first.shape[-1]) if hasattr(first, "shape") and len(first.shape) else max(shape)
    elif phases is not None:
        n = phases.shape[1]
    else:
        sides = [len(mode) for mode in modes if mode is not None and np.ndim(mode) == 2]
        masks = [len(mode) for mode in modes if mode is not None and np.asarray(mode).dtype == np.bool_]
        n = max([*sides, *masks, *shape]) if not sides else sides[0]
    if n < max(shape):
        raise ArgumentValueError(_OWNER, "target", f"must have at most {n} rows and columns, one a port, got {shape}")
    return n


def _modes(ports: Any, n: int, count: int, argument: str) -> NDArray[Any]:
    """Return the modes that count as the columns of a matrix (n, count)."""
    if ports is None:
        return np.eye(n, count, dtype=np.complex128)
    chosen = to_numpy(ports) if is_array(ports) else np.asarray(ports)
    if chosen.ndim == 2:
        modes = chosen.astype(np.complex128)
        if modes.shape != (n, count):
            text = f"must be the columns of a matrix {n, count}, ports by modes, got {modes.shape}"
            raise ArgumentValueError(_OWNER, argument, text)
        if not np.isfinite(modes).all():
            raise ArgumentValueError(_OWNER, argument, "must be finite, got NaN or infinity")
        return modes
    if chosen.dtype == np.bool_ and chosen.shape == (n,):
        chosen = np.flatnonzero(chosen)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        text = f"must be indices of ports, a mask of {n} booleans, or modes in columns, got {ports!r:.80}"
        raise ArgumentTypeError(_OWNER, argument, text)
    if len(chosen) != count or len(set(chosen.tolist())) != count or chosen.min() < 0 or chosen.max() >= n:
        text = (
            f"must be {count} different ports of 0 to {n - 1}, as the target has {count}, got {chosen.tolist()!s:.80}"
        )
        raise ArgumentValueError(_OWNER, argument, text)
    return np.eye(n, dtype=np.complex128)[:, chosen]


def _booleans(adjustable: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which phases can be set."""
    kept = to_numpy(adjustable) if is_array(adjustable) else np.asarray(adjustable)
    if kept.dtype != np.bool_:
        raise ArgumentTypeError(_OWNER, "adjustable", f"must hold booleans, got {kept.dtype}")
    if kept.shape != shape:
        raise ArgumentValueError(_OWNER, "adjustable", f"must have shape (n_masks, N) = {shape}, got {kept.shape}")
    if not kept.any():
        raise ArgumentValueError(_OWNER, "adjustable", "must be True for at least one phase")
    return kept


def _real_matrix(value: Any, argument: str) -> NDArray[np.float64]:
    """Return a matrix of finite real numbers."""
    matrix = to_numpy(as_matrix(value, _OWNER, argument))
    if np.iscomplexobj(matrix):
        raise ArgumentTypeError(_OWNER, argument, "must be real, got complex numbers")
    if not np.isfinite(matrix).all():
        raise ArgumentValueError(_OWNER, argument, "must be finite, got NaN or infinity")
    return np.array(matrix, dtype=np.float64)


# The mixing layers


class _FourierLayer:
    """The unitary Fourier transform, by the FFT itself: an operator's checks would take longer for up to 64 ports."""

    def __init__(self, *, inverse: bool) -> None:
        self.inverse = inverse

    def _transformed(self, x: NDArray[Any], axis: int) -> NDArray[Any]:
        transform = scipy.fft.ifft if self.inverse else scipy.fft.fft
        y: NDArray[Any] = transform(x, axis=axis, norm="ortho")
        return y

    def before(self, columns: NDArray[Any]) -> NDArray[Any]:
        return self._transformed(columns, 0)

    def after(self, rows: NDArray[Any]) -> NDArray[Any]:
        return self._transformed(rows, 1)


class _MatrixLayer:
    """A layer given by its entries or by an operator."""

    def __init__(self, matrix: Any, transposed: Any) -> None:
        self.matrix, self.transposed = matrix, transposed

    def before(self, columns: NDArray[Any]) -> NDArray[Any]:
        product: NDArray[Any] = self.matrix @ columns
        return product

    def after(self, rows: NDArray[Any]) -> NDArray[Any]:
        product: NDArray[Any] = (self.transposed @ rows.T).T
        return product


def _layer(given: Any) -> MixingLayer:
    """Return a layer that computes in double precision in NumPy; operators of other libraries as dense matrices."""
    if isinstance(given, LinearOperator):
        if given.dtype is None or isinstance(given._own_namespace().asarray([0.0]), np.ndarray):
            prepared = given.prepare()
            return _MatrixLayer(prepared, prepared.T)
        given = given.to_dense()
    matrix = to_numpy(given).astype(np.complex128)
    return _MatrixLayer(matrix, matrix.T)


def _layers_of(mixing: Any, n_masks: int, n: int, owner: str) -> list[Any]:
    """Return the layers between the masks, each an array or an operator of the right shape."""
    is_one = isinstance(mixing, LinearOperator) or (is_array(mixing) and mixing.ndim == 2)
    layers = [mixing] * (n_masks - 1) if is_one else list(mixing)
    if len(layers) != n_masks - 1:
        text = f"must be one layer, or {n_masks - 1} for {n_masks} masks, got {len(layers)}"
        raise ArgumentValueError(owner, "mixing", text)
    checked: dict[int, Any] = {}
    for layer in layers:
        if id(layer) not in checked:
            checked[id(layer)] = _checked_layer(layer, n, owner)
    return [checked[id(layer)] for layer in layers]


def _checked_layer(layer: Any, n: int, owner: str) -> Any:
    """Return a layer, an operator or an array of floating-point numbers; refuse another shape, NaN and infinity."""
    if isinstance(layer, LinearOperator):
        if tuple(layer.shape) != (n, n) or layer.batch_shape:
            raise ArgumentValueError(owner, "mixing", f"must have layers of shape {n, n}, got {layer!r}")
        return layer
    matrix = as_matrix(layer, owner, "mixing")
    if tuple(matrix.shape) != (n, n):
        raise ArgumentValueError(owner, "mixing", f"must have layers of shape {n, n}, got {tuple(matrix.shape)}")
    if not np.isfinite(to_numpy(matrix)).all():
        raise ArgumentValueError(owner, "mixing", "must be finite, got NaN or infinity")
    return matrix


def _like(layer: Array, shifts: Array) -> Array:
    """Return the entries of a layer in the library, precision and device of the masks."""
    xp = namespace(shifts)
    if is_array(layer) and namespace(layer) is xp:
        return layer
    return xp.astype(xp.asarray(to_numpy(layer), device=device_of(shifts)), shifts.dtype)


def _is_isometry(modes: NDArray[Any]) -> bool:
    """Return whether the columns of a matrix are orthonormal."""
    return float(np.abs(modes.conj().T @ modes - np.eye(modes.shape[1])).max()) < _UNITARY


def _is_unitary(layer: MixingLayer, n: int) -> bool:
    """Return whether a layer keeps the inner products of random vectors, as unitary matrices alone do."""
    probes = np.random.default_rng(0).standard_normal((n, 4)) + 0j
    images = layer.before(probes)
    return bool(np.allclose(images.conj().T @ images, probes.conj().T @ probes, rtol=0.0, atol=_UNITARY * n))
