"""No number without a record: one small, stable json per method, configuration and seed, and its rows beside it.

``data/results/<preset>/<dataset>/<task>/<method>-<hash>-s<seed>.json``, written aside and renamed. Keys are sorted,
numbers have six significant digits, and NaN is null; so a record that did not change is the same file.
"""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import m2vsl
from m2vsl import paths

if TYPE_CHECKING:
    from torch import Tensor

LARGE = 200_000  # bytes of csv above which rows are compressed


@dataclass(frozen=True)
class Record:
    """What was run, on what, with which result."""

    method: str
    dataset: str  # "synthetic" or the name of the folder
    task: str  # "single", "duet", "multi"
    preset: str
    seed: int
    experiment: Mapping[str, Any]  # the whole tree of configuration, plain values
    metrics: Mapping[str, float]  # name -> value; NaN = undefined
    protocols: Mapping[str, Any]  # name -> its fields: upsampling, rule, canvas, class choice
    n: int  # samples that were evaluated
    ids: str  # `id_hash` of their keys, in order
    commit: str  # of the code; "unknown" outside of a checkout
    dirty: bool | None  # the code differs from the commit; None = unknown
    versions: Mapping[str, str]  # python, torch, torchvision, m2vsl
    hardware: Mapping[str, Any]  # cpu, cores, gpu; bfloat16: computed, not replaced by float32
    created: str  # UTC, ISO 8601
    seconds: float = math.nan  # wall time of training and evaluation
    parameters: int = 0  # trainable numbers
    history: Sequence[Mapping[str, Any]] = field(default_factory=list)  # the curve: step, losses, seconds

    @property
    def hash(self) -> str:
        """`config_hash` of the experiment, part of the file name."""
        return config_hash(self.experiment)

    def path(self, root: Path | None = None) -> Path:
        """Where this record lives."""
        return path_of(root, hash=self.hash, **{k: getattr(self, k) for k in _PLACE})


_PLACE = ("preset", "dataset", "task", "method", "seed")


def config_hash(config: Mapping[str, Any], leave_out: Iterable[str] = ("seed",)) -> str:
    """12 hex digits of the sha256 of the canonical json; the seeds of one configuration share it."""
    kept = {k: v for k, v in config.items() if k not in set(leave_out)}
    text = json.dumps(plain(kept, digits=None), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def id_hash(ids: Iterable[str]) -> str:
    """12 hex digits that name a list of samples; the order counts."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def path_of(
    root: Path | None = None, *, preset: str, dataset: str, task: str, method: str, hash: str, seed: int
) -> Path:
    """``<root>/<preset>/<dataset>/<task>/<method>-<hash>-s<seed>.json``; `root` defaults to ``data/results``."""
    return Path(root or paths.results()) / preset / dataset / task / f"{method}-{hash}-s{seed}.json"


def save(record: Record, root: Path | None = None) -> Path:
    """Write `record` where it belongs. Raises OSError naming the path, leaving whatever stood there untouched."""
    content = {name: getattr(record, name) for name in _FIELDS}
    exact = {"experiment", "protocols"}  # configuration is not rounded
    values = {k: plain(v, digits=None if k in exact else 6) for k, v in content.items()} | {"hash": record.hash}
    return write_aside(record.path(root), written(values))


def load(path: Path) -> Record:
    """The record in `path`. Raises ValueError naming the file if it is damaged or was edited by hand."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a record, expected json ({error})") from error
    got = set(content) if isinstance(content, dict) else set()
    if got != _FIELDS | {"hash"}:
        missing, unknown = sorted((_FIELDS | {"hash"}) - got), sorted(got - _FIELDS - {"hash"})
        raise ValueError(f"{path}: not a record; fields missing: {missing}, unknown: {unknown}")
    stated = content.pop("hash")
    number = {None: math.nan}
    content["metrics"] = {k: number.get(v, v) for k, v in content["metrics"].items()}
    content["history"] = [{k: number.get(v, v) for k, v in row.items()} for row in content["history"]]
    record = Record(**{**content, "seconds": number.get(content["seconds"], content["seconds"])})
    if record.hash != stated:
        raise ValueError(f"{path}: the experiment does not fit its hash: stated {stated}, got {record.hash}")
    return record


def find(root: Path | None = None, **wanted: Any) -> list[Record]:
    """All records whose fields equal `wanted` (``method="m2vsl", task="duet"``), in the order of their paths."""
    unknown = sorted(set(wanted) - _FIELDS - {"hash"})
    if unknown:
        raise ValueError(f"unknown fields {unknown}; a record has {sorted(_FIELDS | {'hash'})}")
    every = map(load, sorted(Path(root or paths.results()).rglob("*.json")))
    return [record for record in every if all(getattr(record, k) == v for k, v in wanted.items())]


def commits(records: Iterable[Record]) -> str:
    """Of which commits they are, and whether the code was changed, in words."""
    return ", ".join(sorted({record.commit[:7] + (" with changes" if record.dirty else "") for record in records}))


def save_rows(path: Path, rows: Sequence[Mapping[str, Any]], name: str = "rows") -> Path:
    """One row per sample beside the record in `path`: ``<record>.<name>.csv``, ``.csv.gz`` above 200 kB."""
    if not rows:
        raise ValueError(f"{path}: no rows to save")
    odd = next((row for row in rows if row.keys() != rows[0].keys()), None)
    if odd is not None:
        raise ValueError(f"{path}: rows differ in columns: expected {list(rows[0])}, got {list(odd)}")
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(plain(rows))
    data = text.getvalue().encode()
    small, large = (path.with_name(f"{path.stem}.{name}{ending}") for ending in (".csv", ".csv.gz"))
    target, other = (large, small) if len(data) > LARGE else (small, large)
    write_aside(target, gzip.compress(data, mtime=0) if target == large else data)
    other.unlink(missing_ok=True)
    return target


def level(rows: Iterable[Mapping[str, Any]], leave_out: Container[str] = ()) -> list[dict[str, Any]]:
    """Rows with the same columns, those of all of them but `leave_out`; empty where a row has none."""
    every = list(rows)
    names = [name for name in dict.fromkeys(name for row in every for name in row) if name not in leave_out]
    return [{name: row.get(name) for name in names} for row in every]


def load_rows(path: Path, name: str = "rows") -> list[dict[str, Any]]:
    """The rows beside the record in `path`; numbers as numbers, an empty cell as NaN. FileNotFoundError if none."""
    small, large = (path.with_name(f"{path.stem}.{name}{ending}") for ending in (".csv", ".csv.gz"))
    data = gzip.decompress(large.read_bytes()) if large.exists() else small.read_bytes()
    rows = csv.DictReader(io.StringIO(data.decode()))
    return [{k: v if k in _TEXT else _number(v) for k, v in row.items()} for row in rows]


def save_maps(path: Path, maps: Tensor, name: str) -> Path:
    """A few maps (n, S, h, w) for the eye beside the record in `path`: ``<record>.<name>.npz``, float16."""
    import numpy as np

    data = io.BytesIO()
    np.savez_compressed(data, maps=maps.detach().cpu().half().numpy())
    return write_aside(path.with_name(f"{path.stem}.{name}.npz"), data.getvalue())


def load_maps(path: Path, name: str) -> Tensor:
    """The maps beside the record in `path`, (n, S, h, w) float32. FileNotFoundError if none were kept."""
    import numpy as np
    import torch

    with np.load(path.with_name(f"{path.stem}.{name}.npz"), allow_pickle=False) as kept:
        return torch.from_numpy(kept["maps"]).float()


def provenance() -> dict[str, Any]:
    """Where and when this process runs, as fields of a `Record`: commit, dirty, versions, hardware, created."""
    import torch

    commit, dirty = _commit()
    versions = {name: metadata.version(name) for name in ("torch", "torchvision")}
    versions |= {"python": platform.python_version(), "m2vsl": m2vsl.__version__}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    hardware = {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)) if _LINUX else os.cpu_count(), "gpu": gpu}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"commit": commit, "dirty": dirty, "versions": versions, "hardware": hardware, "created": created}


def write_aside(path: Path, data: bytes) -> Path:
    """`data` as `path`, whole or not at all: written beside it, then renamed over it.

    Raises OSError naming `path`; the temporary is removed and what stood there before is untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, f"not written ({reason}), nothing was changed", str(path)) from error
    return path


_TEXT = {"key", "ids", "protocol", "score", "subset"}  # columns that stay text, even where it looks like a number
_FIELDS = {f.name for f in fields(Record)}
_RECORDS = (":!data/results", ":!data/bench")  # where git does not look for changes
_LINUX = platform.system() == "Linux"


def settled(config: Any) -> dict[str, Any]:
    """The fields of a configuration, without those of its ``LATER`` that are at their default.

    So a field that is younger than a record leaves its hash as it was.
    """
    later = {f.name: f.default for f in fields(config) if f.name in getattr(config, "LATER", ())}
    return {k: v for k, v in asdict(config).items() if k not in later or v != later[k]}


def plain(value: Any, digits: int | None = 6) -> Any:
    """`value` in what json knows: numbers rounded to `digits`, NaN and infinities null, arrays as lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {str(k): plain(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, digits) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v, digits) for v in value)
    if value is None or isinstance(value, (str, int)):
        return value
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value), digits)
    raise TypeError(f"a record holds plain values, got {type(value).__name__}: {value!r}")


def written(values: Mapping[str, Any]) -> bytes:
    """Plain `values` as json, a line per key, sorted, so that a difference of two records reads well."""
    lines = (f"{json.dumps(key)}: {_layout(values[key])}" for key in sorted(values))
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _layout(value: Any) -> str:
    """One line; a list of rows has one line per row."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return "[\n " + ",\n ".join(json.dumps(row, sort_keys=True) for row in value) + "\n]"
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _number(text: str) -> Any:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return text  # a key or a class name


def _commit() -> tuple[str, bool | None]:
    """The commit of this checkout and whether the code differs from it; new records are no difference."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != paths.ROOT:  # installed inside of another project
            return "unknown", None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", *_RECORDS))
    except (OSError, subprocess.SubprocessError):
        return "unknown", None


def _cpu() -> str:
    """The model of the processor, in its maker's words."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
