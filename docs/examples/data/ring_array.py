"""Write `ring_array.npy`: what a ring of 128 transducers with unknown gains records of each other.

    python docs/examples/data/ring_array.py

Entry (i, j) is the amplitude that transducer i receives of the wave of transducer j: Green's function of the Helmholtz
equation in the plane at their distance, times a gain of each for sending and for receiving, plus noise of one per cent.
"""

from pathlib import Path

import numpy as np
from scipy.special import y0

N, WAVE_NUMBER, RADIUS_OF_A_TRANSDUCER, NOISE = 128, 30.0, 0.02, 0.01


def recorded(rng: np.random.Generator) -> np.ndarray:
    """Return the matrix; the ring has radius one, some transducers have the wrong polarity."""
    positions = np.exp(2j * np.pi * np.arange(N) / N)
    distances = np.hypot(abs(positions[:, None] - positions), RADIUS_OF_A_TRANSDUCER)
    sent, received = np.exp(0.4 * rng.standard_normal((2, N))) * rng.choice([-1, 1], (2, N))
    clean = received[:, None] * -y0(WAVE_NUMBER * distances) / 4 * sent
    noise = rng.standard_normal((N, N))
    return clean + NOISE * np.linalg.norm(clean) / np.linalg.norm(noise) * noise


if __name__ == "__main__":
    np.save(Path(__file__).with_suffix(".npy"), recorded(np.random.default_rng(0)).astype(np.float32))
