"""``python -m structmat`` is the `structmat` command."""

from __future__ import annotations

import sys

from structmat.cli import main

if __name__ == "__main__":
    sys.exit(main())
