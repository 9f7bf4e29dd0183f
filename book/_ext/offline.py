"""Sphinx extension: pages load the scripts that book/vendor.py put beside them, and the web's where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

MATHJAX = "vendor/mathjax/tex-mml-chtml.js"
WIDGETS = ("vendor/requirejs/require.js", "vendor/html-manager/dist/embed-amd.js")


def use_vendored(app: Sphinx, config: Config) -> None:
    """Names that Sphinx and MyST-NB resolve relative to ``_static``."""
    static = Path(app.srcdir, config.html_static_path[0])
    if (static / MATHJAX).exists():
        config.mathjax_path = MATHJAX
    if all((static / script).exists() for script in WIDGETS):
        config.nb_ipywidgets_js = {script: {} for script in WIDGETS}


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.connect("config-inited", use_vendored)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
