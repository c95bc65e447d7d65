"""Sphinx configuration of the documentation: `make docs` writes build/docs/index.html.

The source folder is the repository itself, so that lab pages, README and CONTRIBUTING are pages too and each relative
link in them is checked; `sphinx-build -c docs . build/docs` is the command.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx

from rankbench import __version__

ROOT = Path(__file__).resolve().parent.parent
RELATIVE = re.compile(r'(?<=(?:href|.src)=")(?![a-z]+:|#)[^"]+')  # addresses in HTML

project = "rankbench"
release = __version__
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "experiments/*.md",
    "examples/*/README.md",
    "results/README.md",
    "results/published/README.md",
    "README.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "build", "dist", "results/runs", "results/sweeps", "rankbench", "tests", "conf"]

myst_heading_anchors = 4  # a link may end in #a-heading; one that leads nowhere is a warning
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "rankbench"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}  # the first page lies in docs/, like its source
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
highlight_language = "text"


def link_to_checkout(app: Sphinx, document: nodes.document) -> None:
    """Let links to what is no page (folders, other Markdown files, reports) lead into the checkout of the pages.

    Other files are copied beside the pages by MyST, and a link to what does not exist stays one: a warning. A report
    is no single file: its figures lie beside it.
    """
    source = app.env.docname
    page = Path(app.outdir, app.builder.get_target_uri(source))
    for link in list(document.findall(pending_xref)):
        target = unquote(link["reftarget"])
        if link["refdomain"] == "doc":
            file = ROOT / f"{target}.md" if target not in app.env.found_docs else None
        else:
            file = (ROOT / source).parent / target if target[:1] not in ("", "#") else None
        if link["reftype"] == "myst" and file is not None and file.exists():
            address = os.path.relpath(file, page.parent)
            link.replace_self(nodes.reference("", "", *link.children, refuri=address, internal=False))
    folder = (ROOT / source).parent
    for link in list(document.findall(download_reference)):
        if link["reftarget"].endswith(".html"):
            address = os.path.relpath(folder / link["reftarget"], page.parent)
            link.replace_self(nodes.reference("", "", *link.children, refuri=address, internal=False))
    for html in list(document.findall(nodes.raw)):
        text = RELATIVE.sub(lambda match: os.path.relpath(folder / match[0], page.parent), html.astext())
        html.replace_self(nodes.raw(html.rawsource, text, format=html["format"]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what MyST leaves open."""
    app.connect("doctree-read", link_to_checkout, priority=400)  # before files to be copied are collected, at 500
    app.add_lexer("csv", TextLexer)  # Pygments has none
    return {"parallel_read_safe": True, "parallel_write_safe": True}
