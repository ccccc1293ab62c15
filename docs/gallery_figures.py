"""The figures of the gallery: the size of their text, and figures that pyplot does not manage (`structmat.plot`)."""

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
