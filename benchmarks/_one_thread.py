"""Importing this keeps the process to one thread on one core, with the kernels that BLAS chooses for this processor.

Libraries read their settings when they start. Sorted by name, this import stands before those of NumPy and torch.
"""

import os

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
if hasattr(os, "sched_setaffinity"):  # whatever a library starts; processes side by side seldom get the same core
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
