"""The figures of the gallery: where they stand, the size of their text, and those that pyplot does not manage."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def enlarge_text(_gallery_conf, _fname):
    """Set the size of text before each example: a figure 11 inches wide can be read at a width of 400 pixels."""
    mpl.rcParams.update({"font.size": 14, "axes.titlesize": "medium", "legend.fontsize": "small"})


def scrape(block, block_vars, gallery_conf):
    """Save the figure that the last expression of a block returned, if any."""
    value = block_vars["example_globals"].get("___")
    if block[0] != "code" or not isinstance(value, Figure) or value.canvas.manager is not None:
        return ""
    path = next(block_vars["image_path_iterator"])
    value.savefig(path, dpi=120)
    block_vars["example_globals"]["___"] = None
    return figure_rst([path], gallery_conf["src_dir"])


def show_first(app, name, source):
    """Put the first figure of a page of the gallery below its introduction, so that the page begins with a picture."""
    path = Path(app.env.doc2path(name))
    picture = path.parent / "images" / f"sphx_glr_{path.stem}_001.png"
    if path.name.startswith("plot_") and picture.exists():
        shown = f".. image:: images/{picture.name}\n   :alt: What the page draws.\n   :class: first-picture\n\n"
        introduction, code, rest = source[0].partition(".. GENERATED FROM PYTHON SOURCE LINES")
        source[0] = f"{introduction}{shown}{code}{rest}"


def setup(app):
    app.connect("source-read", show_first)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
