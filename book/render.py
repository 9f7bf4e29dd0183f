"""Render the book from the clean notebooks and a folder of executed copies.

python book/render.py book/_executed/quick-synthetic

A warning is an error. Every build is a whole one (some seconds): Sphinx reports a page's warnings only when it reads
the page, copies style sheets only when it writes one, and never removes what is no longer wanted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from run import COLOUR, ROOT, report

BUILD = ROOT / "book" / "_build"
PLACES = ["--config", "_config.yml", "--toc", "book/_toc.yml", "--path-output", "book"]
STRICT = ["-W", "-n", "--keep-going"]
TROUBLE = ("WARNING", "ERROR", "Traceback", "Error:")


def main(executed: str) -> int:
    """Build the page, say in one line how it went; 0 if there was nothing to complain about."""
    began = time.monotonic()
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    log = BUILD / "build.log"
    command = ["jupyter-book", "build", ".", *PLACES, *STRICT]
    environment = {**os.environ, "M2VSL_EXECUTED": executed}
    with log.open("w") as out:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
    report("FAIL" if done.returncode else "pass", "book", time.monotonic() - began)
    if done.returncode:
        lines = COLOUR.sub("", log.read_text("utf-8")).splitlines()
        trouble = [line for line in lines if any(word in line for word in TROUBLE)]
        print("\n".join(trouble or lines[-25:]), f"\n  the whole log: {log.relative_to(ROOT)}", flush=True)
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
