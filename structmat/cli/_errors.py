"""From exceptions to one line on stderr that names the argument, and an exit status."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

__all__ = ["FAILURE", "INTERRUPTED", "USAGE", "CommandError", "blaming"]

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

_OWN = re.compile(
    r"(?:fit_cdd|error_curve|load_matrix|fit_checkpoint|SweepConfig|MatrixSource): (\w+) (must .*)", re.DOTALL
)
"""How the package's own functions name the argument at fault."""


class CommandError(Exception):
    """What stops a command: an argument, what is wrong with it, and the exit status."""

    def __init__(self, argument: str, text: str, status: int = FAILURE) -> None:
        super().__init__(f"{argument}: {text}")
        self.status = status


@contextlib.contextmanager
def blaming(argument: str) -> Iterator[None]:
    """Turn what goes wrong inside into a `CommandError` of that argument, or of the option that the error names."""
    try:
        yield
    except FileExistsError as error:
        raise CommandError(argument, f"{error.filename} exists; --force replaces it", USAGE) from error
    except OSError as error:
        raise CommandError(argument, f"{error.filename}: {error.strerror}") from error
    except MemoryError as error:
        raise CommandError(argument, "there is not enough memory for it") from error
    except (ValueError, TypeError) as error:
        if (named := _OWN.fullmatch(str(error))) is None:
            raise CommandError(argument, str(error)) from error
        name, text = named.groups()
        if name == argument:
            raise CommandError(argument, text) from error
        raise CommandError(f"--{name.replace('_', '-')}", text, USAGE) from error
