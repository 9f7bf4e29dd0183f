"""One run: a method, a data set, a configuration, a seed; from there to a record.

`run` loads the record if there is one, else resumes, else trains: the same call on a laptop and on a GPU. `DATASETS` is
literal: what can be run stands here, and in `m2vsl.methods`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from m2vsl import parallel, paths, records
from m2vsl.audio import AudioConfig
from m2vsl.baselines.ez_vsl import EZVSLConfig
from m2vsl.data.avsbench import AVSBenchConfig, AVSBenchDataset
from m2vsl.data.avsbench_like import AVSBenchLikeConfig, AVSBenchLikeDataset
from m2vsl.data.folder import FolderConfig, FolderDataset
from m2vsl.data.loader import Batches, batches
from m2vsl.data.synthetic import SyntheticConfig, SyntheticDataset
from m2vsl.data.vggsound import VGGSoundConfig, VGGSoundDataset
from m2vsl.exam import Exam
from m2vsl.localizer import Localizer, device_of
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.metrics.calls import described
from m2vsl.metrics.protocols import EVERY
from m2vsl.metrics.segmentation import THRESHOLDS
from m2vsl.processor import has_bfloat16, kept_memory, without_denormals
from m2vsl.records import Record
from m2vsl.segmenting import ways
from m2vsl.training import checkpoint
from m2vsl.training.config import TrainConfig
from m2vsl.training.loop import train
from m2vsl.training.progress import History
from m2vsl.types import Batch

DATASETS: dict[str, tuple[Any, Any]] = {
    "synthetic": (SyntheticDataset, SyntheticConfig),
    "folder": (FolderDataset, FolderConfig),
    "vggsound": (VGGSoundDataset, VGGSoundConfig),  # VGGSound-Single and -Duet; data.benchmark=instruments, flickr
    "avsbench": (AVSBenchDataset, AVSBenchConfig),  # task single is S4, multi MS3
    "avsbench-like": (AVSBenchLikeDataset, AVSBenchLikeConfig),  # synthetic, in its layout
}
TASKS = ("single", "duet", "multi")


@dataclass(frozen=True)
class Experiment:
    """The whole tree of choices behind one number."""

    method: str  # a key of METHODS
    dataset: str  # a key of DATASETS
    task: str  # what it is tested on: "single", "duet" or "multi"
    preset: str  # the name that `presets` gave these sizes
    seed: int  # of everything drawn: weights, pairs, order
    data: SyntheticConfig | FolderConfig | VGGSoundConfig | AVSBenchConfig
    audio: AudioConfig
    model: Any  # of the method: M2VSLConfig, EZVSLConfig, ControlConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("dataset", DATASETS), ("task", TASKS)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name} among {', '.join(known)}, got {getattr(self, name)!r}")

    @property
    def trains(self) -> bool:
        """Controls do not."""
        return self.method not in CONTROLS

    @property
    def train_task(self) -> str:
        """Solos for methods that learn from solos, else what is tested; ledger 45."""
        return "single" if METHODS[self.method].solos else self.task

    @property
    def masks_alone(self) -> bool:
        """Whether nobody has told which pixels belong to which source: frames have masks, sources have none."""
        return getattr(self.data, "masks_alone", False)

    @property
    def source(self) -> str:
        """The data set as records call it: ``synthetic``, the name of the folder, or benchmark and task."""
        return self.data.source(self.task)

    def tree(self) -> dict[str, Any]:
        """Plain values for records and hashes; a folder goes by its name, wherever it lies."""
        tree = asdict(self)
        tree |= {section: records.settled(getattr(self, section)) for section in ("model", "train")}
        tree["data"] |= self.data.placeless()
        return tree

    def record_path(self) -> Path:
        """Where its record is, or will be."""
        return records.path_of(
            hash=records.config_hash(self.tree()),
            dataset=self.source,
            **{k: getattr(self, k) for k in ("preset", "task", "method", "seed")},
        )

    def training_tree(self) -> dict[str, Any]:
        """The part of the tree that training depends on: several tests may share one training."""
        tree = {k: v for k, v in self.tree().items() if k != "preset"}
        at_test = getattr(self.model, "AT_TEST", ())
        learnt = {k: v for k, v in tree["model"].items() if k not in at_test}
        return tree | {"task": self.train_task, "method": self.learner().method, "model": learnt}

    def learner(self) -> Experiment:
        """The part of it that learns: object guidance adds a frozen network to what EZ-VSL has learnt."""
        if isinstance(self.model, EZVSLConfig) and self.model.ogl:
            return replace(self, method="ez_vsl", model=replace(self.model, ogl=False))
        return self

    def run_dir(self) -> Path:
        """Where its checkpoints are."""
        tree = self.training_tree()
        name = f"{tree['method']}-{self.train_task}-{records.config_hash(tree)}-s{self.seed}"
        return paths.runs() / self.data.source(self.train_task) / name

    def complete(self) -> bool:
        """Whether its training has ended, or there is none."""
        newest = checkpoint.latest(self.run_dir())
        return not self.trains or (newest is not None and newest.name == f"step-{self.train.steps:06d}")

    def samples(self, split: str, *, task: str | None = None, sound: str = "mixture") -> Any:
        """The data set of a split. Of a picture with several sources all sound, or ``one`` at a time."""
        make = DATASETS[self.dataset][0]
        made = make(self.data, split, task=task or self.task, sound=sound, seed=self.seed, audio=self.audio)
        if sound == "mixture" and (skipped := getattr(made, "skipped", ())):  # nothing is left out in silence
            told = "\n".join(f"  {problem}" for problem in skipped)
            print(f"{split}: {len(skipped)} problem(s), left out:\n{told}", file=sys.stderr, flush=True)
        return made

    def build(self, classes: int) -> Localizer:
        """The method with the weights of its seed, before training."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return METHODS[self.method].build(self.model, classes)


def run(experiment: Experiment, *, fresh: bool = False, progress: bool = True, max_hours: float = 0.0) -> Record:
    """The record of `experiment`: loaded if recorded, else trained (or resumed), scored and saved.

    fresh: forget its checkpoints and train anew; the earlier record stays until the new one is complete.
    max_hours: see `m2vsl.training.loop.train`.
    """
    parallel.start()
    if experiment.record_path().exists() and not fresh:
        return records.load(experiment.record_path())
    if fresh:
        with parallel.main_first():
            shutil.rmtree(experiment.run_dir(), ignore_errors=True)
    return scored(experiment, progress=progress, max_hours=max_hours)


def scored(experiment: Experiment, *, progress: bool = True, max_hours: float = 0.0) -> Record:
    """A new record of `experiment`, trained if it is not: of every test list of its task, under every protocol.

    Beside the record lie rows per source, one file per test list; of seed 0 also rows per frame, and maps for the eye.
    Of several processes the main one scores every sample and writes; the others wait for the record.
    """
    began = time.perf_counter()
    localizer, history = trained(experiment, progress=progress, max_hours=max_hours)
    with parallel.main_first():
        if parallel.is_main():
            return _examined(experiment, localizer, history, began)
    return records.load(experiment.record_path())


def _examined(experiment: Experiment, localizer: Localizer, history: History, began: float) -> Record:
    path = experiment.record_path()
    exam = Exam(
        localizer, experiment.train, experiment.audio, experiment.seed, path, bound=experiment.method == "bound"
    )
    val = experiment.samples("val") if getattr(experiment.data, "val_masks", False) else None
    cuts = {} if val is None else exam.cuts(val)
    scalars, ids = {f"cut/{name}": cut / (THRESHOLDS - 1) for name, cut in cuts.items()}, list[str]()
    for name, dataset in test_lists(experiment):
        found = {} if experiment.masks_alone else exam.localized(name, dataset)
        found |= exam.segmented(name, dataset, cuts, alone=experiment.masks_alone)
        scalars |= {f"{name}/{key}": value for key, value in found.items()}
        scalars |= {f"{name}/n_listed": float(dataset.full)} if hasattr(dataset, "full") else {}
        ids += dataset.ids()
    record = Record(
        **{k: getattr(experiment, k) for k in ("method", "task", "preset", "seed")},
        dataset=experiment.source,
        experiment=experiment.tree(),
        metrics=scalars | _training(history),
        protocols=described(() if experiment.masks_alone else EVERY.values(), *ways(localizer)),
        n=len(ids),
        ids=records.id_hash(ids),
        seconds=history.seconds if history.seconds else time.perf_counter() - began,
        parameters=history.parameters,
        history=history.curve,
        **_provenance(localizer),
    )
    records.save(record)
    return record


def trained(
    experiment: Experiment, *, progress: bool = True, max_hours: float = 0.0, profile: int = 0
) -> tuple[Localizer, History]:
    """The method, trained: loaded if its training is complete, else resumed or begun. Controls come as they are.

    max_hours, profile: see `m2vsl.training.loop.train`.
    """
    parallel.start()
    if not experiment.trains:
        return experiment.build(len(experiment.samples("test").classes)), History()
    with parallel.main_first():  # some write their files at the first use
        samples = experiment.samples("train", task=experiment.train_task)
    if "labels" in METHODS[experiment.method].build.wants and not getattr(samples, "labelled", True):
        raise ValueError(f"{experiment.method} learns from labels, and the training list has none: see vggsound.csv")
    localizer, size = experiment.learner().build(len(samples.classes)), experiment.train.batch_size

    def whole(epoch: int, start: int, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        place: dict[str, Any] = {"seed": experiment.seed, "epoch": epoch, "start_step": start, "part": part}
        place |= {"workers": paths.workers(), "sounds_on_device": experiment.train.sounds_on_device}
        return iter(batches(samples, size, experiment.audio, shuffle=True, drop_last=True, **place))

    def own(epoch: int, start: int) -> Iterator[Batch]:
        return whole(epoch, start, (parallel.rank(), parallel.world()))

    held_out = _held_out(experiment)
    with without_denormals(), kept_memory():
        history = train(
            localizer,
            own,
            experiment.train,
            experiment.run_dir(),
            validate=None if held_out is None else lambda: -_loss(localizer, held_out),
            whole=whole,
            progress=progress,
            seed=experiment.seed,
            about=experiment.training_tree(),
            max_hours=max_hours,
            profile=profile,
        )
    if experiment.learner() != experiment:
        whole = experiment.build(len(samples.classes)).to(device_of(localizer))
        whole.load_state_dict(localizer.state_dict(), strict=False)
        localizer = whole.eval()
    return localizer, history


def _held_out(experiment: Experiment) -> Batches | None:
    """Validation batches that choose among the weights of a run; None = the last ones are kept (ledger 44).

    As large as a training batch, or one of all there is; the same frames every time.
    """
    if not experiment.data.validates:
        return None
    samples = experiment.samples("val", task=experiment.train_task)
    if len(samples) < 2:
        raise ValueError(f"expected at least 2 validation samples, a loss contrasts them, got {len(samples)}")
    size = min(experiment.train.batch_size, len(samples))
    return batches(samples, size, experiment.audio, drop_last=True)


def _loss(localizer: Localizer, loader: Any) -> float:
    """Mean of the summed losses over held-out batches: labels are read, masks are not (ledger 44)."""
    mode = localizer.training
    localizer.eval()
    device = device_of(localizer)
    with torch.no_grad():
        values = [float(sum(localizer(batch.to(device)).values())) for batch in islice(loader, 8)]
    localizer.train(mode)
    return sum(values) / len(values)


def test_lists(experiment: Experiment) -> list[tuple[str, Any]]:
    """The fixed lists of a task by name: solos; or pictures whose sources all sound, and those where one does."""
    if experiment.task == "single":
        return [("solo", experiment.samples("test"))]
    if experiment.masks_alone:
        return [("mixture", experiment.samples("test"))]
    return [(sound, experiment.samples("test", sound=sound)) for sound in ("mixture", "one")]


def _provenance(localizer: Localizer) -> dict[str, Any]:
    """Where this runs, and whether bfloat16 is computed there: a run that asks for it has float32 where it is not."""
    found = records.provenance()
    found["hardware"]["bfloat16"] = has_bfloat16(device_of(localizer).type)
    return found


def _training(history: History) -> dict[str, float]:
    if not history.step:
        return {}
    numbers = {"steps": float(history.step), "samples_per_second": history.samples_per_second}
    numbers |= {"best_step": float(history.best_step), "peak_bytes": float(history.peak_bytes)}
    return {f"train/{name}": value for name, value in numbers.items()}
