"""The card of released weights: what they are, how they were made, what they score and what they are not for.

Every number comes from records. Scores bear the names of their protocols (``mixture/framewise-matched-oracle/iou``) and
stand beside those of Centre, Oracle and the bound on the same test list.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from m2vsl import presets, records
from m2vsl.experiment import Experiment
from m2vsl.methods import METHODS
from m2vsl.records import Record

SOLO = {
    "area-matched IoU": "solo/framewise-matched-oracle/iou",
    "the same, class predicted": "solo/framewise-matched-predicted/iou",
    "CAP": "solo/oracle/cap",
    "CIoU@0.5, 50 % rule": "solo/framewise-area50-oracle/ciou@0.5",
}
DUET = {
    "all sound: area-matched IoU": "mixture/framewise-matched-oracle/iou",
    "the same, classes predicted": "mixture/framewise-matched-predicted/iou",
    "CAP": "mixture/oracle/cap",
    "CIoU@0.3, 50 % rule": "mixture/framewise-area50-oracle/ciou@0.3",
    "one sounds: area-matched IoU, class predicted": "one/framewise-matched-predicted/iou",
    "maximum in the right half": "one/oracle/half",
}
BESIDE = ("centre", "oracle", "bound")
ABSENT = "\N{EN DASH}"


TEXT = """\
# {name}

{title}, trained on *{source}* for the task *{task}*, preset *{preset}*, seed {seed}: {million:.1f} million learnt
numbers in half precision, so that a page has a trained model in seconds. The frozen trunk ({trunk}, ImageNet)
is not here: it comes from its own package and is put back by

```python
from m2vsl import released

localizer, experiment = released.load("{name}")
```

## How it was made

```
{commands}
```

| | |
|---|---|
| commit | {commit} |
| configuration | `{record.hash}`, in full in `config.json` |
| training | {train.steps} updates of {train.batch_size} samples, {size} px a frame |
| took | {record.seconds:.0f} s of wall time with its evaluation, on {where} |
| versions | {versions} |

{why}

## What it scores

{scores}

*Per cent; n = {record.n}, list {record.ids}. Each row names test list, protocol and score.* {compared}

## What it is for

Trying things out: looking at maps, swapping sounds, a test that needs a model which has learnt something. It is one
seed of a preset made for minutes on two cores.

## What it is not for

- It knows the {classes} classes of *{source}* and nothing else.
- No score of it compares with a number printed in a paper: other data, another trunk, other sizes.
- One seed says nothing about a method; the tables of the book have several, with intervals.
- A map is no measurement of who speaks, and nothing to act upon where people are concerned.

## Files

```
{files}
```

Licence of these weights: Apache-2.0, as the code. The trunk's weights have terms of their own (book/provenance.md).
"""


def command(verb: str, experiment: Experiment) -> str:
    """``m2vsl VERB METHOD/TASK ...`` of an experiment that is as its preset has it."""
    options = ["--preset", experiment.preset, "--seed", str(experiment.seed)]
    if experiment.dataset != "synthetic":
        options += ["--dataset", experiment.dataset, "--data-root", experiment.source]
    return shlex.join(["m2vsl", verb, f"{experiment.method}/{experiment.task}", *options])


def written(
    name: str,
    experiment: Experiment,
    record: Record,
    halved: Mapping[str, float],
    hashes: Mapping[str, str],
    compared: str,
) -> str:
    """The card as Markdown.

    halved: the scalars of the weights as released; hashes: file -> sha256; compared: how far these are from the
    record's, in words.
    """
    hardware = record.hardware
    return TEXT.format(
        name=name,
        title=METHODS[experiment.method].title,
        source=experiment.source,
        task=experiment.task,
        preset=experiment.preset,
        seed=experiment.seed,
        million=record.parameters / 1e6,
        trunk=experiment.model.encoder.visual,
        commands="\n".join(command(verb, experiment) for verb in ("train", "evaluate", "release")),
        record=record,
        commit=records.commits([record]),
        train=experiment.train,
        size=experiment.data.size,
        where=hardware["gpu"] or f"{hardware['cores']} cores of {hardware['cpu']}",
        versions=", ".join(f"{k} {v}" for k, v in sorted(record.versions.items())),
        why=_why(experiment),
        scores=_scores(experiment, record, halved),
        compared=compared,
        classes=len(experiment.samples("test").classes),
        files="\n".join(f"{digest}  {file}" for file, digest in hashes.items()),
    )


def beside(experiment: Experiment, method: str, task: str = "", seed: int = 0) -> Experiment:
    """What the same preset makes of another method or task on the same data."""
    root = getattr(experiment.data, "root", "")
    preset, dataset = experiment.preset, experiment.dataset
    return presets.experiment(
        method, task or experiment.task, preset=preset, dataset=dataset, data_root=root, seed=seed
    )


def _recorded(experiment: Experiment, task: str) -> dict[str, Record]:
    """The records of the constants and of the bound, those that exist."""
    paths = {name: beside(experiment, name, task).record_path() for name in BESIDE}
    return {name: records.load(path) for name, path in paths.items() if path.exists()}


def _scores(experiment: Experiment, record: Record, halved: Mapping[str, float]) -> str:
    others = _recorded(experiment, experiment.task)
    heads = ["", "protocol", "these weights", "the record", *(METHODS[name].title for name in others)]
    columns = [halved, record.metrics, *(other.metrics for other in others.values())]
    rows = [heads, ["---"] * len(heads)]
    for label, metric in (SOLO if experiment.task == "single" else DUET).items():
        numbers = [f"{100 * c[metric]:.1f}" if metric in c else ABSENT for c in columns]
        rows.append([label, f"`{metric}`", *numbers])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _why(experiment: Experiment) -> str:
    """Why of pictures with several sources: a disc shows how little of a solo has to be heard."""
    solos = _recorded(experiment, "single").get("centre")
    pairs = _recorded(experiment, experiment.task).get("centre")
    if experiment.task != "duet" or not solos or not pairs:
        return ""
    solo = 100 * solos.metrics["solo/framewise-matched-oracle/iou"]
    pair = 100 * pairs.metrics["mixture/framewise-matched-oracle/iou"]
    return (
        "Duets and not solos, as they are the more telling: a solo has one thing to find and need not be listened to, "
        f"and a disc in its middle gets {solo:.1f} % area-matched IoU. Of a duet the disc gets {pair:.1f} %, it points "
        "into the right half every second time, and who does not hear which of the two sounds is no better."
    )
