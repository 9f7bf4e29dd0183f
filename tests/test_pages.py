"""The rendered pages in a browser: formulas are set, the tables and figures of the runs are there, nothing is fetched.

Needs a built book and Chromium; where one is missing the tests say so and are skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

HTML = Path(__file__).resolve().parents[1] / "book" / "_build" / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
NOTEBOOKS = sorted(path.stem for path in (HTML / "notebooks").glob("*.html"))
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine"),
    pytest.mark.skipif(not (HTML / "index.html").is_file(), reason="no built book: run `make book` first"),
]


@cache
def seen(page: str) -> str:
    """The page as the browser has it once its scripts have run."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *OFFLINE, "--virtual-time-budget=10000"]
    done = subprocess.run(
        [*command, "--dump-dom", (HTML / page).as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_every_equation_of_the_paper_is_set() -> None:
    page = seen("book/equations.html")
    numbered = set(re.findall(r'id="equation-eq-(\d)"', page))
    assert numbered == set("123456")
    assert page.count("<mjx-container") >= 6 and "<mjx-merror" not in page


def test_the_first_page_shows_the_framework_and_leads_to_every_notebook() -> None:
    page = seen("book/index.html")
    picture = re.search(r'<img[^>]*src="([^"]*framework\.svg)"', page)
    assert picture and (HTML / "book" / picture[1]).is_file()
    assert NOTEBOOKS and all(f"{name}.html" in page for name in NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_what_it_made(name: str) -> None:
    page = seen(f"notebooks/{name}.html")
    assert "Traceback (most recent call last)" not in page
    pictures = re.findall(r'<img[^>]*src="([^"]*_images/[^"]*)"', page)
    assert all((HTML / "notebooks" / source).is_file() for source in pictures)
    assert pictures or "<table" in page
    silent = [
        tag for tag in re.findall(r'<img[^>]*src="[^"]*_images/[^>]*>', page) if not re.search(r'alt="[^"/]+\w', tag)
    ]
    assert silent == [], "every picture says what it shows"


@pytest.mark.parametrize("name", [n for n in NOTEBOOKS if n.startswith(("13", "14"))])
def test_figures_of_the_paper_are_printable(name: str) -> None:
    pictures = re.findall(r'<img[^>]*src="[^"]*_images/[^"]*\.(\w+)"', seen(f"notebooks/{name}.html"))
    assert pictures and set(pictures) == {"svg"}


@pytest.mark.parametrize("name", ["book/index", "book/equations", *(f"notebooks/{n}" for n in NOTEBOOKS)])
def test_no_page_fetches_anything(name: str) -> None:
    page = seen(f"{name}.html")
    fetched = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(https?://[^"]*)"', page)
    fetched += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(https?://[^"]*)"', page)
    assert fetched == []
