"""Sphinx settings. The build needs no network; set DOCS_ONLINE=1 to link to the documentation of other projects."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import structmat

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the modules beside this file

import api_pages

project = "structmat"
author = "The structmat developers"
copyright = f"2026, {author}"
release = version = structmat.__version__
tools = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["tool"]
addresses = tools["hatch"]["metadata"]["hooks"]["custom"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "numpydoc_template",
    "mathml",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "gallery_figures",
    "plain_pages",
]
if os.environ.get("DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

exclude_patterns = ["_build", "_generated", "changes", "examples", "guide/tools_versions.md", "**/README.md"]
templates_path = ["_templates"]
default_role = "py:obj"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

toc_object_entries_show_parents = "hide"  # or long names would be cut off
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_context = {
    "of_private_bases": {name: api_pages.of_private_bases(cls) for cls, name in api_pages.PUBLIC.items()}
}
autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the numpydoc sections state the types
numpydoc_show_class_members = False  # the templates list them

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = f"structmat {release}"
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", addresses["documentation"])  # what search engines show
html_static_path = ["_static"]
html_css_files = ["structmat.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "structmat"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
if addresses["repository"]:
    html_theme_options["icon_links"] = [
        {"name": "Repository", "url": addresses["repository"], "icon": "fa-solid fa-code-branch"}
    ]
html_sidebars = {page: [] for page in ("index", "quickstart")}

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"__init__\.py|finetune_minilm\.py|likelihood_with_gaps\.py",  # these are commands
    "subsection_order": [
        f"examples/{group}" for group in ("series", "images", "sound", "physics", "systems", "products")
    ],
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "write_computation_times": False,
    "plot_gallery": "True",
    "image_scrapers": ("matplotlib", "gallery_figures.scrape"),
    "reset_modules": ("matplotlib", "gallery_figures.enlarge_text"),  # in this order: the first restores the defaults
    "thumbnail_size": (640, 400),
    "min_reported_time": 1e9,
    "copyfile_regex": r".*\.npy",
}


def write_command_help() -> None:
    """Write the help texts of the command, which docs/command.md includes."""
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    for words in ((), ("fit",), ("curve",), ("sweep",), ("info",)):
        arguments = [sys.executable, "-m", "structmat", *words, "--help"]
        text = subprocess.run(arguments, env=environment, check=True, capture_output=True, encoding="utf-8").stdout
        target = folder / f"{'-'.join(('help', *words))}.txt"
        target.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def keep_readme_of_data(app):
    """Keep the gallery from taking docs/examples/data/README.md, for readers of the repository, as a section."""
    app.config.sphinx_gallery_conf["source_suffix"] = {".rst": "restructuredtext"}


def setup(app):
    app.connect("builder-inited", keep_readme_of_data, priority=1)  # before the gallery is made


write_command_help()
