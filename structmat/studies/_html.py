"""Self-contained HTML pages: facts, tables and figures in one file."""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structmat
from structmat._files.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Section", "html_page", "without_missing_glyphs"]


class Section(NamedTuple):
    """One part of a page."""

    title: str
    text: str = ""
    figure: Figure | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """Of a table; what looks like a number stands at the right."""
    folded: bool = False
    """Whether the reader must unfold the table."""


def html_page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> bytes:
    """Return a page that needs no other file and no network, with figures as drawings in it."""
    try:
        import jinja2  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise ImportError('an HTML report needs the extra "studies": pip install "structmat[studies]"') from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("structmat.studies", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        title=printable(title),
        facts={name: printable(text) for name, text in facts.items()},
        sections=[(s._replace(rows=_printable(s.rows)), _drawn(s.figure)) for s in sections],
        version=structmat.__version__,
        is_number=_is_number,
    )
    return page.encode()


@contextlib.contextmanager
def without_missing_glyphs() -> Iterator[None]:
    """Draw without a warning for every letter that matplotlib's font lacks, such as those of Chinese names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ", UserWarning)
        yield


def _printable(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[printable(cell) for cell in row] for row in rows]


def _drawn(figure: Figure | None) -> str:
    """Return a figure as the address of an image, if there is one: equal figures give equal texts."""
    if figure is None:
        return ""
    import matplotlib as mpl  # noqa: PLC0415  # an extra

    stream = io.BytesIO()
    # Text stays text, so that the reader's fonts decide on what can be shown.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "structmat"}), without_missing_glyphs():
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text in {"", "-"}
