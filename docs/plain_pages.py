"""Read pages of plain Markdown, which show well where the repository is browsed, as pages of the site.

Outside of code this changes, in every page of `docs`:

- a link to a script of the gallery leads to the page that the script makes;
- a link to a file outside of `docs`, or to a heading in it, is one to download it;
- the full name of a public object, such as `structmat.io.save`, leads to the page of this object;
- a comment `<!-- included: FILE | NAME -->` becomes what stands in a file between the comments `<!-- NAME -->` and
  `<!-- /NAME -->`, or the whole file without a name. Readers of the source have a link to the file in the text above.
"""

import re
from pathlib import Path

CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
GALLERY = re.compile(r"(\]\((?:\.\./)*)examples/(\w+/plot_\w+)\.py(?=[)#])")
OUTSIDE = re.compile(r"(?<!!)(\[[^\]]*\]\()((?:\.\./)+benchmarks/[^)#]+)(?:#[^)]+)?(?=\))")
NAME = re.compile(r"(?<![`}\w])`(structmat(?:\.\w+)+)`(?!`)")
INCLUDED = re.compile(r"^<!-- included: (\S+?)(?: \| (.+?))? -->$", re.MULTILINE)


def for_the_site(text, folder):
    """Return the text of a page of some folder as the site needs it."""
    text = INCLUDED.sub(lambda match: part(folder / match[1], match[2]), text)
    codes = CODE.findall(text)
    proses = [prose_for_the_site(prose) for prose in CODE.split(text)]
    return "".join(prose + code for prose, code in zip(proses, [*codes, ""], strict=True))


def prose_for_the_site(prose):
    """Return text outside of code with the links that the site has."""
    prose = GALLERY.sub(r"\1auto_examples/\2.rst", prose)
    prose = OUTSIDE.sub(r"\1path:\2", prose)
    return NAME.sub(r"{py:obj}`\1`", prose)


def part(file, name):
    """Return what stands in a file between the comments of a name, or the whole file."""
    text = file.read_text("utf-8")
    if name is None:
        return text.strip()
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    for border in (start, end):
        if text.count(border) != 1:
            raise ValueError(f"{file} has {border} {text.count(border)} times, expected once")
    return text.partition(start)[2].partition(end)[0].strip()


def read(app, name, source):
    """Change the source of a page of Markdown before it is parsed."""
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        source[0] = for_the_site(source[0], path.parent)


def setup(app):
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
