"""Show figures in the gallery that pyplot does not manage, such as those of `structmat.plot`."""

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def scrape(block, block_vars, gallery_conf):
    """Save the figure that the last expression of a block returned, if any."""
    value = block_vars["example_globals"].get("___")
    if block[0] != "code" or not isinstance(value, Figure) or value.canvas.manager is not None:
        return ""
    path = next(block_vars["image_path_iterator"])
    value.savefig(path, dpi=120)
    block_vars["example_globals"]["___"] = None
    return figure_rst([path], gallery_conf["src_dir"])
