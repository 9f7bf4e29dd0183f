"""Where a number broke, memory that was not enough, and a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import Tiny, batches_from, config, run

from m2vsl.training import watch
from m2vsl.training.config import TrainConfig
from m2vsl.types import Batch, Losses

BATCH = next(batches_from(0, 0))


def test_the_first_place_that_broke_is_named() -> None:
    assert watch.first_broken(Tiny(), replace(BATCH, image=BATCH.image * float("nan"))) == "image of the data"
    weight = Tiny()
    weight.net[4].weight.data[0] = float("inf")
    assert watch.first_broken(weight, BATCH) == "the weights net.4.weight"
    output = Tiny()
    output.net[0].weight.data.fill_(3e38)
    assert watch.first_broken(output, BATCH) == "the output of net.0"
    assert watch.first_broken(Tiny(), BATCH) == "the loss itself"


def test_a_broken_batch_is_kept_to_look_at(tmp_path: Path) -> None:
    class Broken(Tiny):
        def forward(self, batch: Batch) -> Losses:
            return {"fit": super().forward(batch)["fit"] * float("nan")}

    with pytest.raises(FloatingPointError, match=r"the loss itself broke first; .*broken-000001-0\.pt"):
        run(tmp_path, method=Broken)
    kept = torch.load(tmp_path / "broken-000001-0.pt", weights_only=True)
    first = next(batches_from(0, 0))
    assert kept["keys"] == list(first.keys) and kept["image"].shape == first.image.shape


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: you tried"), MemoryError("no")],
)
def test_out_of_memory_says_what_to_lower(error: Exception, tmp_path: Path) -> None:
    class Large(Tiny):
        def forward(self, batch: Batch) -> Losses:
            raise error

    with pytest.raises(MemoryError, match=r"4 pictures of 8x8 in a process: lower train\.batch_size or data\.size"):
        run(tmp_path, method=Large)


def test_another_runtime_error_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), watch.enough_memory(BATCH):
        raise RuntimeError("shapes do not fit")


def test_a_trace_of_some_steps_is_kept(tmp_path: Path) -> None:
    run(tmp_path, config=config(steps=6), profile=2)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("name", "").startswith("Optimizer.step") for event in events) == 2
    run(tmp_path / "none", config=config(steps=3))
    assert not (tmp_path / "none" / "trace.json").exists()


def test_half_precision_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="fp16 ends at 65,504"):
        TrainConfig(precision="fp16")


def test_the_most_memory_is_told(tmp_path: Path) -> None:
    _, history = run(tmp_path, config=config(steps=1))
    assert history.peak_bytes > 100e6  # torch alone takes more
