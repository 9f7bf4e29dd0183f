"""Put the scripts of the pages beside the pages, so that formulas and widgets are seen without a network.

python book/vendor.py     # book/_static/vendor/, not under version control

MathJax comes out of the Python package sphinx-mathjax-offline. The two scripts of ipywidgets come through the npm
client of this machine and are checked against npm's own sha512; where there is no npm the pages ask the web for them.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

VENDOR = Path(__file__).resolve().parent / "_static" / "vendor"
PATIENCE = ("--fetch-retries=0", "--fetch-timeout=30000")  # without a network the book must not wait
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2/*.woff", "input/tex/extensions/*.js")


@dataclass(frozen=True)
class Bundle:
    """Some files of an npm package at one version."""

    package: str
    version: str
    sha512: str  # base64, npm's dist.integrity
    keep: tuple[str, ...]  # patterns inside the package

    @property
    def name(self) -> str:
        """The folder it is kept in."""
        return self.package.rsplit("/", 1)[-1]


BUNDLES = (
    Bundle(
        package="requirejs",
        version="2.3.7",
        sha512="DouTG8T1WanGok6Qjg2SXuCMzszOo0eHeH9hDZ5Y4x8Je+9JB38HdTLT4/VA8OaUhBa0JPVHJ0pyBkM1z+pDsw==",
        keep=("require.js",),
    ),
    Bundle(
        package="@jupyter-widgets/html-manager",
        version="1.0.14",
        sha512="wglgQQ+VMj+MBKkTttdeoMtOah/H2A1w5GU1OAVXmDQqZYTK6C+oHZjQMxcNezIpiqUjC1YHKOo5XdP3ENvBng==",
        keep=("dist/embed-amd.js", "dist/*.woff2"),
    ),
)


def copy_mathjax(target: Path) -> None:
    """The files of MathJax that a page with TeX loads, out of the installed Python package."""
    package = distribution("sphinx-mathjax-offline")
    for file in package.files or []:
        inside = PurePosixPath(*file.parts[3:])  # sphinx-mathjax-offline/static/mathjax/...
        if file.parts[1:3] == ("static", "mathjax") and any(inside.match(p) for p in MATHJAX):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target / inside)


def fetch(bundle: Bundle, target: Path) -> None:
    """The kept files of an npm package; a package that is not the one we know is refused with `ValueError`."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", *PATIENCE, f"{bundle.package}@{bundle.version}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=120)
        unpack(bundle, next(Path(folder).glob("*.tgz")), target)


def unpack(bundle: Bundle, archive: Path, target: Path) -> None:
    """Check `archive` and write its kept files under `target`."""
    got = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if got != bundle.sha512:
        raise ValueError(f"{bundle.package}@{bundle.version}: expected sha512 {bundle.sha512}, got {got}")
    with tarfile.open(archive) as tar:
        for member in tar:
            inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])  # package/...
            content = tar.extractfile(member)
            if content and any(inside.match(pattern) for pattern in bundle.keep):
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                (target / inside).write_bytes(content.read())


def place(folder: Path, version: str, fill: Callable[[Path], None]) -> None:
    """Fill `folder` aside and rename it; nothing is done where this version is in place."""
    stamp = folder / "VERSION"
    if stamp.exists() and stamp.read_text("utf-8") == version:
        return
    aside = folder.with_name(folder.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        fill(aside)
        (aside / "VERSION").write_text(version, "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def main(vendor: Path = VENDOR) -> int:
    """Fill the folder; what cannot be had is named, and only a wrong checksum is an error."""
    place(vendor / "mathjax", distribution("sphinx-mathjax-offline").version, copy_mathjax)
    for bundle in BUNDLES:
        try:
            place(vendor / bundle.name, bundle.version, lambda target, bundle=bundle: fetch(bundle, target))
        except (OSError, subprocess.SubprocessError) as error:
            why = "no npm on this machine" if isinstance(error, FileNotFoundError) else f"npm: {error}"
            print(f"note  {bundle.name}: {why}; widgets in the pages will need the network")
        except ValueError as error:
            print(f"FAIL  {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
