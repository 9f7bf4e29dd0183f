"""Sphinx extension: give a notebook's page the outputs of its executed copy.

The table of contents names ``notebooks/NN_name``; papermill writes ``<executed_dir>/NN_name.ipynb``. While Sphinx
reads ``notebooks/NN_name``, outputs are taken from the copy, cell by cell (by cell id). The page is the notebook under
version control, which stores no outputs, and an edit of prose needs no new run. A code cell that differs from the one
that ran is a warning, never shown with the old output. A picture's text, which says what is drawn, becomes its ``alt``.
"""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

Notebook = dict[str, Any]
log = logging.getLogger(__name__)
SAID: dict[str, str] = {}  # picture of a run -> its text, while its page is read
SHOWN = ("preset", "dataset", "seed")  # the parameters a reader is told; data_root is a place on one machine


def code(cell: dict[str, Any]) -> str:
    """The source of a cell, which a file may hold as a list of lines."""
    return "".join(cell["source"])


def merge(page: Notebook, run: Notebook) -> list[str]:
    """Put the outputs of `run` into `page`; returns the ids of the code cells of `page` that `run` did not run."""
    ran = {cell["id"]: cell for cell in run["cells"] if cell["cell_type"] == "code"}
    stale = []
    for cell in (c for c in page["cells"] if c["cell_type"] == "code"):
        cell["outputs"], cell["execution_count"] = [], None
        other = ran.get(cell["id"])
        if other is None or code(other) != code(cell):
            stale.append(cell["id"])
        else:
            cell["outputs"], cell["execution_count"] = other["outputs"], other["execution_count"]
    page["metadata"] = run["metadata"]  # the state of the widgets and the name of the language are in here
    return stale


def provenance(run: Notebook) -> Notebook | None:
    """A folded note: with which parameters the page was run, when, for how long."""
    ran = run["metadata"].get("papermill")
    if not ran:
        return None
    given = ", ".join(f"{name} `{ran['parameters'][name]}`" for name in SHOWN if name in ran["parameters"])
    when = ran["start_time"][:16].replace("T", " ")
    python = run["metadata"].get("language_info", {}).get("version", "?")
    text = f":::{{admonition}} Run with {given or 'its own parameters'}\n:class: provenance dropdown\n"
    text += f"{when} UTC, {ran['duration']:.0f} s, Python {python}, papermill {ran['version']}.\n:::"
    return {"cell_type": "markdown", "id": "provenance", "metadata": {}, "source": text}


def warn(docname: str, kind: str, text: str, *given: object) -> None:
    """A warning at a page; under ``-W`` the build fails with it."""
    log.warning(text, *given, location=docname, type="executed", subtype=kind)


def overlay(app: Sphinx, docname: str, source: list[str]) -> None:
    """On ``source-read``: replace the text of a notebook by the same with outputs."""
    prefix = app.config.executed_source.strip("/") + "/"
    if not docname.startswith(prefix):
        return
    copy = Path(app.srcdir, app.config.executed_dir, docname[len(prefix) :] + ".ipynb")
    if not copy.exists():
        warn(docname, "missing", "no executed copy at %s: shown without outputs", copy)
        return
    app.env.note_dependency(str(copy))
    page, run = json.loads(source[0]), json.loads(copy.read_text("utf-8"))
    if stale := merge(page, run):
        warn(docname, "stale", "%s: cells %s changed since the run", copy, ", ".join(stale))
    if note := provenance(run):
        page["cells"].insert(1, note)
    SAID.update(pictures(run))
    source[0] = json.dumps(page)


def pictures(run: Notebook) -> dict[str, str]:
    """What each picture of a run says in words, its text output, by the hash that its file is named by."""
    found = {}
    for cell in (c for c in run["cells"] if c["cell_type"] == "code"):
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text/plain" not in data:
                continue
            if "image/png" in data:
                found[_name(b64decode("".join(data["image/png"])))] = "".join(data["text/plain"])
            if "image/svg+xml" in data:
                drawn = os.linesep.join("".join(data["image/svg+xml"]).splitlines())
                found[_name(drawn.encode())] = "".join(data["text/plain"])
    return found


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def describe(app: Sphinx, doctree: nodes.document) -> None:
    """On ``doctree-read``: pictures of a run get the words that it has for them."""
    for image in doctree.findall(nodes.image):
        said = SAID.get(PurePosixPath(image["uri"]).stem)
        if said and not image.get("alt"):
            image["alt"] = said


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_config_value("executed_source", "notebooks", "env")
    app.add_config_value("executed_dir", os.environ.get("M2VSL_EXECUTED", "book/_executed/quick-synthetic"), "env")
    app.connect("source-read", overlay)
    app.connect("doctree-read", describe)
    return {"version": "1", "parallel_read_safe": True, "env_version": 1}
