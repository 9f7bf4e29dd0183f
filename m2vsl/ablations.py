"""The ablations: Table 4, Figure 4, and every step from the paper's model to ours. One row is one change.

A row is a method with some fields laid over its preset; the rest of the experiment is that of every other row. Groups
answer one question each, and name the row that they start from.

Source: section 4.3; ledger 4-6, 11, 15, 18, 34, 35, 56, 58.

Conventions
-----------
- The paper's row "without either" repeats, to every digit, the row of another network (ledger 34). Here it is our own
  trunk: its last stage, a classifier of the whole picture and its activation maps, which is `CAM`. Without MMT the map
  is of the whole mixture; without MMC one scale is contrasted, as in EZ-VSL (ledger 35).
- Batch sizes are compared at the same number of frames, as epochs do (``batch``), and at the same number of updates
  (``updates``). The rate stays as it is (ledger 56).
- `steps` go one after the other: each row keeps the changes of those above it, and the last one is ``m2vsl_plus``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from m2vsl import presets
from m2vsl.experiment import Experiment, run
from m2vsl.methods import PLUS

BATCHES = (8, 16, 32, 64, 128, 256)  # Figure 4
FEW = BATCHES[:4]  # of the group "updates": a batch of 256 would take 16 times as long as one of 16
USUAL = 16  # frames of an update in the preset "quick"
UPDATES = 50  # of every batch size in the group "updates"


@dataclass(frozen=True)
class Row:
    """A method with changes."""

    group: str
    title: str  # what is changed; "" = nothing: the row that the group starts from
    changes: tuple[str, ...] = ()  # key=value, as `presets.override` has them
    method: str = "m2vsl"
    batch: int = 0  # frames of an update; 0 = the preset's
    updates: int = 0  # 0 = as many as see the preset's number of frames


MODULES = (  # Table 4, in its order
    Row("modules", "neither", ("model.last_stride=2",), "cam"),
    Row("modules", "MMC", ("model.mmt=false",)),
    Row("modules", "MMT", ("model.scales=[4]",)),
    Row("modules", "MMC and MMT"),
    Row("modules", "neither, with EZ-VSL's contrast", ("model.mmt=false", "model.scales=[4]")),
)
SCALES = (
    Row("scales", "4", ("model.scales=[4]",)),
    Row("scales", "3, 4", ("model.scales=[3,4]",)),
    Row("scales", "2, 3, 4", ("model.scales=[2,3,4]",)),
    Row("scales", "1, 2, 3, 4"),
)
TRANSFORMER = (
    Row("transformer", "maps before it, 5 x 5 tokens, depth 3"),
    Row("transformer", "maps after it", ("model.map_features=after",)),
    Row("transformer", "maps before and after it", ("model.map_features=both",)),
    Row("transformer", "7 x 7 tokens", ("model.tokens=7",)),
    Row("transformer", "attention as printed", ("model.literal_attn=true",)),
    Row("transformer", "depth 1", ("model.depth=1",)),
    Row("transformer", "depth 6", ("model.depth=6",)),
)
TEMPERATURE = (
    Row("temperature", "0.03"),
    Row("temperature", "0.07", ("model.temperature=0.07",)),
    Row("temperature", "0.2", ("model.temperature=0.2",)),
)
BATCH = tuple(Row("batch", str(size), batch=size) for size in BATCHES)
AT_EQUAL_UPDATES = tuple(Row("updates", str(size), batch=size, updates=UPDATES) for size in FEW)
_STEPS = (  # (what is changed, fields of `PLUS` that change)
    ("without the finest scale", "scales"),
    ("class losses summed over classes", "class_reduction"),
    ("classes heard from the sound itself", "heard_from"),
    ("pairs of one class are no negatives", "same_class_negatives"),
    ("soft peak", "peak sharpness"),
    ("coarse scales added to finer ones", "top_down"),
    ("class loss on the maps", "map_weight"),
    ("without loudness", "loudness"),
    ("sounds of a batch mixed", "remix"),
    ("presence: heard and seen", "presence"),
    ("maps spread over what looks alike", "spread"),
    ("lengths of cells kept in maps", "lengths"),
    ("frames brought to 224 px for a map", "view"),
)


def _steps() -> Iterator[Row]:
    changes: tuple[str, ...] = ()
    yield Row("steps", "M2VSL")
    for title, names in _STEPS[:-1]:
        values = {name: getattr(PLUS, name) for name in names.split()}
        changes += tuple(f"model.{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in values.items())
        yield Row("steps", title, changes)
    yield Row("steps", f"{_STEPS[-1][0]}: M2VSL+", method="m2vsl_plus")


STEPS = tuple(_steps())
GROUPS: dict[str, tuple[Row, ...]] = {
    "modules": MODULES,
    "scales": SCALES,
    "transformer": TRANSFORMER,
    "temperature": TEMPERATURE,
    "batch": BATCH,
    "updates": AT_EQUAL_UPDATES,
    "steps": STEPS,
}


def experiment(
    row: Row, task: str, *, preset: str = "quick", dataset: str = "avsbench-like", data_root: str = "", seed: int = 0
) -> Experiment:
    """The experiment of a row."""
    made = presets.experiment(row.method, task, preset=preset, dataset=dataset, data_root=data_root, seed=seed)
    changes = list(row.changes)
    if row.batch:
        frames = made.train.steps * made.train.batch_size
        steps = row.updates or max(round(frames / row.batch), 1)
        warmup = round(steps * made.train.warmup_steps / made.train.steps)
        changes += [f"train.batch_size={row.batch}", f"train.steps={steps}", f"train.warmup_steps={warmup}"]
        changes += [f"train.eval_every={min(made.train.eval_every, steps)}"]
    return presets.override(made, changes)


def plan(
    groups: Sequence[str] = tuple(GROUPS),
    tasks: Sequence[str] = ("multi",),
    seeds: Sequence[int] = (0,),
    **choices: str,
) -> list[Experiment]:
    """The experiments of some groups, each once however many groups have it; ValueError for an unknown group."""
    if unknown := [group for group in groups if group not in GROUPS]:
        raise ValueError(f"expected groups among {', '.join(GROUPS)}, got {', '.join(unknown)}")
    made = [
        experiment(row, task, seed=seed, **choices)
        for seed in seeds
        for task in tasks
        for group in groups
        for row in GROUPS[group]
    ]
    return list({one.record_path(): one for one in made}.values())


def run_all(experiments: Sequence[Experiment], jobs: int = 1) -> None:
    """Record every experiment that is not: some at a time, each on a core of its own; those of one training in turn."""
    alone: dict[Path, list[Experiment]] = {}
    for one in experiments:
        if not one.record_path().exists():
            alone.setdefault(one.run_dir(), []).append(one)
    if jobs < 2:
        for shared in alone.values():
            _run(shared)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        list(pool.map(_run, alone.values()))


def _run(experiments: Sequence[Experiment]) -> None:
    for one in experiments:
        record = run(one, progress=False)
        print(f"{one.record_path().name}: {record.seconds:.0f} s", flush=True)
