"""What the package logs, on stderr."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["logging_to_stderr"]


@contextlib.contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Write what is logged inside, from a level on; inside of a display of progress, which then stays whole."""
    logger = logging.getLogger("structmat")
    handler = logging.StreamHandler()  # to sys.stderr as it is now
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.level
    logger.setLevel(level.upper())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
