"""Names from outside: safe for terminals, figures and file systems."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from structmat._files.text import counted, figure_text, first_bytes, last_bytes, printable


@given(st.text())
def test_printable_text_has_no_control_characters_and_can_be_encoded(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_figures_show_dollars_as_they_are():
    figure = Figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    text = figure.text(0.5, 0.5, figure_text("$\\frac$\x1b"))
    assert text.get_window_extent(renderer).width > 0
    assert figure_text("$a$") == r"\$a\$"
    assert figure_text("_net.0") == " _net.0"  # legends leave out what begins with an underscore


@given(st.text(), st.integers(1, 20))
def test_parts_of_names_are_short_enough_and_parts(text, most):
    for part, is_part in ((first_bytes(text, most), str.startswith), (last_bytes(text, most), str.endswith)):
        assert len(part.encode()) <= most
        if text.isascii():
            assert len(part) == min(len(text), most)
            assert is_part(text, part)


def test_one_thing_is_singular():
    assert [counted(n, "layer") for n in (0, 1, 2, 1024)] == ["0 layers", "1 layer", "2 layers", "1,024 layers"]
