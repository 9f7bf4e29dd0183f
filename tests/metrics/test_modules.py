"""The metrics as modules of torchmetrics: the same values whatever the batches, the processes and the loop."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric, MetricCollection

from m2vsl.metrics.modules import (
    AVSBenchF,
    AVSBenchIoU,
    ClassAwareAP,
    LocalizationScore,
    PermutationInvariantAP,
    PixelAveragePrecision,
)
from m2vsl.metrics.overlap import Area, MinMax, success_auc
from m2vsl.metrics.protocols import EVERY, PROTOCOLS, PUBLISHED, Protocol
from m2vsl.metrics.ranking import average_precision, class_aware_ap, permutation_invariant_ap
from m2vsl.metrics.segmentation import f_score, mean_iou

if TYPE_CHECKING:
    from accelerate import Accelerator

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 0, "atol": 1e-12}
SEVERAL = (LocalizationScore, PixelAveragePrecision, ClassAwareAP, PermutationInvariantAP)  # (B, S, H, W)
FRAMES = (AVSBenchIoU, AVSBenchF)  # (N, H, W)


def case(seed: int, pictures: int = 64, size: tuple[int, int] = (6, 12)) -> tuple[Tensor, Tensor, Tensor]:
    """Maps and truths (B, 2, H, W), one source per frame, some empty, and which sources count."""
    source = torch.Generator().manual_seed(seed)
    heat = torch.randn(pictures, 2, *size, generator=source)
    truth = (torch.rand(pictures, 2, *size, generator=source) < torch.rand(pictures, 2, 1, 1, generator=source)).float()
    half = size[1] // 2
    truth[:, 0, :, half:], truth[:, 1, :, :half] = 0, 0
    truth[::7, 0] = 0
    heat = heat + 2 * truth
    present = torch.rand(pictures, 2, generator=source) < 0.8
    truth[3:4], present[5:6] = 0, False
    return heat, truth, present


def frames(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Logits and truths (N, H, W), every sixth empty."""
    heat, truth, _ = case(seed, count)
    truth = truth[:, 0]
    truth[1::6] = 0
    return heat[:, 0], truth


def all_metrics() -> dict[str, Metric]:
    """Every class, by the name of its input: protocols of every kind of field."""
    protocols = ("framewise-area50-oracle", "sourcewise-minmax05-oracle", "lvs", "slavc", "avgn", "dsol-0.2")
    return {
        **{name: LocalizationScore(name) for name in protocols},
        "ap": PixelAveragePrecision(),
        "cap": ClassAwareAP(),
        "piap": PermutationInvariantAP(),
        "jaccard": AVSBenchIoU(),
        "f": AVSBenchF(),
        "f5": AVSBenchF(frames_per_call=5),
    }


def feed(metric: Metric, pictures: slice) -> None:
    """Hand some of the pictures, or of five times as many frames, to a metric."""
    if isinstance(metric, FRAMES):
        logits, truth = frames(9, 320)
        metric.update(*(x[5 * pictures.start : 5 * pictures.stop] for x in (logits, truth)))
        return
    heat, truth, present = (x[pictures] for x in case(4))
    if isinstance(metric, LocalizationScore):
        metric.update(heat, truth, present)
    else:
        metric.update(heat, truth)


def flat(value: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """A score as a dictionary, whatever its class."""
    return value if isinstance(value, dict) else {"": value}


def same(value: Tensor | dict[str, Tensor], other: Tensor | dict[str, Tensor]) -> None:
    """Hits agree exactly, means to 1e-12."""
    assert flat(value).keys() == flat(other).keys()
    for name, one in flat(value).items():
        assert one.dtype == torch.float64 and one.shape == () and bool(one.isfinite()), name
        torch.testing.assert_close(one, flat(other)[name], **(EXACT if "ciou" in name or name == "auc" else CLOSE))


# the same as the functions ------------------------------------------------------------------------------------------


def slow_scores(protocol: Protocol, heat: Tensor, truth: Tensor, present: Tensor) -> dict[str, float]:
    """Picture by picture, source by source."""
    values, boxed = [], []
    for picture in range(len(truth)):
        counted = [s for s in range(truth.shape[1]) if present[picture, s]]
        ious = [float(protocol.iou(heat[picture, s : s + 1], truth[picture, s : s + 1])) for s in counted]
        real = [bool(truth[picture, s].any()) for s in counted]
        if protocol.pooled == "picture" and ious:
            ious, real = [sum(ious) / len(ious)], [any(real)]
        values, boxed = values + ious, boxed + real
    scores = {}
    for level in protocol.at:
        passed = [value > level if protocol.strict else value >= level for value in values]
        scores[f"ciou@{level:g}"] = sum(passed) / len(values)
    curve = [value for value, real in zip(values, boxed, strict=True) if real or not protocol.boxed_auc]
    nodes = [sum(value >= 0.05 * k for value in curve) / len(curve) for k in range(21)]
    area = sum(0.05 * (left + right) / 2 for left, right in pairwise(nodes))
    return scores | {"auc": area, "iou": sum(values) / len(values)}


@pytest.mark.parametrize("name", ["framewise-area50-oracle", *PUBLISHED])
def test_scores_are_those_of_every_source_by_hand(name: str) -> None:
    heat, truth, present = case(1)
    score = LocalizationScore(name)
    score.update(heat, truth, present)
    found = {key: float(value) for key, value in score.compute().items()}
    assert found == pytest.approx(slow_scores(EVERY[name], heat, truth, present), abs=1e-12)


def test_fields_of_a_protocol_change_the_score() -> None:
    heat, truth, present = case(1)
    scores = {}
    for field in ({}, {"boxed_auc": True}, {"pooled": "picture"}):
        score = LocalizationScore(Protocol("one", Area(0.5), **field))
        score.update(heat, truth, present)
        scores[str(field)] = float(score.compute()["auc"])
    assert len(set(scores.values())) == 3


def test_success_at_a_level_is_reached_or_exceeded() -> None:
    truth = torch.zeros(1, 4, 5)
    truth[0, 0, :3] = 1  # 3 of 10 predicted pixels: IoU 0.3 exactly
    heat = torch.arange(20, 0, -1).float().view(1, 4, 5)
    for strict in (False, True):
        score = LocalizationScore(Protocol("one", Area(0.5), at=(0.3,), strict=strict))
        score.update(heat, truth)
        found = score.compute()
        assert float(found["ciou@0.3"]) == (0 if strict else 1)
        assert float(found["auc"]) == success_auc(torch.tensor([0.3], dtype=torch.float64))


def test_without_a_source_axis_every_picture_is_one_source() -> None:
    heat, truth, present = case(2)
    alone, several = LocalizationScore(), LocalizationScore()
    alone.update(heat[:, 0], truth[:, 0], present[:, 0])
    several.update(heat[:, :1], truth[:, :1], present[:, :1])
    same(alone.compute(), several.compute())
    everything = LocalizationScore()
    everything.update(heat[:, 0], truth[:, 0])
    assert float(everything.compute()["iou"]) != float(alone.compute()["iou"])


@pytest.mark.parametrize("name", ["ezvsl", "slavc", "avgn"])
def test_coarse_maps_are_brought_to_size_as_the_protocol_does(name: str) -> None:
    _, truth, present = case(3, 8, (12, 24))
    coarse = torch.randn(8, 2, 4, 8, generator=torch.Generator().manual_seed(3))
    given, resized = LocalizationScore(name), LocalizationScore(name)
    given.update(coarse, truth, present)
    resized.update(EVERY[name].at_size(coarse, (12, 24)), truth, present)
    same(given.compute(), resized.compute())
    otherwise = LocalizationScore(name)
    otherwise.update(F.interpolate(coarse, size=(12, 24), mode="nearest"), truth, present)
    assert float(otherwise.compute()["iou"]) != float(given.compute()["iou"])


def test_average_precisions_are_means_of_the_functions_and_count_what_they_skip() -> None:
    heat, truth, _ = case(4)
    expected = {
        PixelAveragePrecision: average_precision(heat, truth).flatten(),
        ClassAwareAP: class_aware_ap(heat, truth),
        PermutationInvariantAP: permutation_invariant_ap(heat, truth),
    }
    for kind, values in expected.items():
        metric = kind()
        for part in (slice(0, 10), slice(10, 64)):
            metric.update(heat[part], truth[part])
        torch.testing.assert_close(metric.compute(), values.nanmean(), **CLOSE)
        assert metric.skipped == int(values.isnan().sum()) > 0


@pytest.mark.parametrize("frames_per_call", [None, 1, 5])
def test_avsbench_is_its_functions(frames_per_call: int | None) -> None:
    logits, truth = frames(5, 40)
    jaccard, f = AVSBenchIoU(), AVSBenchF(frames_per_call)
    for part in (slice(0, 10), slice(10, 25), slice(25, 40)):
        jaccard.update(logits[part], truth[part])
        f.update(logits[part], truth[part])
    assert float(jaccard.compute()) == pytest.approx(mean_iou(logits, truth), abs=1e-12)
    assert float(f.compute()) == pytest.approx(f_score(logits, truth, frames_per_call), abs=1e-12)
    if frames_per_call != 5:
        alone = AVSBenchF(frames_per_call)
        alone.update(logits[2:3], truth[2:3])
        assert float(alone.compute()) == pytest.approx(f_score(logits[2:3], truth[2:3]), abs=1e-12) != 0


def test_frames_without_a_truth_score_f_0_and_no_frames_none() -> None:
    for frames_per_call in (None, 2):
        f, nothing = AVSBenchF(frames_per_call), AVSBenchF(frames_per_call)
        f.update(torch.ones(4, 3, 3), torch.zeros(4, 3, 3))
        assert float(f.compute()) == 0
        nothing.update(torch.ones(0, 3, 3), torch.zeros(0, 3, 3))
        assert math.isnan(float(nothing.compute()))


def test_perfect_maps_score_1() -> None:
    _, truth, _ = case(6)
    truth[:, 0, 0, 0], truth[:, 1, 0, -1] = 1, 1
    for metric in (LocalizationScore("framewise-minmax05-oracle"), *(kind() for kind in SEVERAL[1:])):
        metric.update(truth * 3 - 7, truth)
        for value in flat(metric.compute()).values():
            assert float(value) == pytest.approx(1, abs=1e-12)
    for metric in (AVSBenchIoU(), AVSBenchF(), AVSBenchF(1)):
        metric.update(20 * truth[:, 0] - 10, truth[:, 0])
        assert float(metric.compute()) == pytest.approx(1, abs=1e-6)  # the published 1e-7 in the denominator


# whatever the batches and the processes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", all_metrics())
def test_the_batch_size_does_not_matter(name: str) -> None:
    whole, single, uneven = (all_metrics()[name] for _ in range(3))
    feed(whole, slice(0, 64))
    for picture in range(64):
        feed(single, slice(picture, picture + 1))
    for part in (slice(0, 0), slice(0, 37), slice(37, 64)):
        feed(uneven, part)
    same(single.compute(), whole.compute())
    same(uneven.compute(), whole.compute())


SHARDS = (slice(0, 5), slice(5, 8))  # uneven on purpose


def _worker(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    metrics, lonely = all_metrics(), LocalizationScore()
    for metric in metrics.values():
        for picture in range(SHARDS[number].start, SHARDS[number].stop):
            feed(metric, slice(picture, picture + 1))
    if number == 0:
        feed(lonely, SHARDS[0])
    told = {name: metric.compute() for name, metric in metrics.items()} | {"lonely": lonely.compute()}
    told |= {"skipped": torch.tensor(float(metrics["ap"].skipped))}
    for metric in metrics.values():
        feed(metric, SHARDS[number])  # what was computed in between must not stay in the states
    told |= {f"{name} again": metric.compute() for name, metric in metrics.items()}
    torch.save(told, f"{folder}/{number}.pt")
    dist.destroy_process_group()


def test_two_processes_score_what_one_does(tmp_path: Path) -> None:
    mp.spawn(_worker, (str(tmp_path),), nprocs=2)
    told = [torch.load(tmp_path / f"{number}.pt") for number in (0, 1)]
    for name, metric in all_metrics().items():
        feed(metric, slice(0, 8))
        for one in told:
            same(one[name], metric.compute())
            same(one[f"{name} again"], metric.compute())
    alone = LocalizationScore()
    feed(alone, SHARDS[0])
    same(told[0]["lonely"], alone.compute())
    same(told[1]["lonely"], alone.compute())
    empty = [int((case(4)[1][shard] == 0).all(-1).all(-1).sum()) for shard in SHARDS]
    assert [int(one["skipped"]) for one in told] == empty


# in anybody's loop --------------------------------------------------------------------------------------------------


def test_metrics_that_agree_on_the_first_batch_stay_apart_in_a_collection() -> None:
    names = ("framewise-area50-oracle", "sourcewise-area50-oracle")
    collection = MetricCollection(
        {**{name: LocalizationScore(name) for name in names}, "cap": ClassAwareAP(), "piap": PermutationInvariantAP()}
        | {"twin": LocalizationScore(names[0])}
    )
    nothing = torch.zeros(1, 2, 4, 8)
    collection.update(nothing, nothing)  # every metric has the same sums
    heat, truth, _ = case(7)
    collection.update(heat, truth)
    found = collection.compute()
    assert sorted(map(sorted, collection.compute_groups.values())) == [
        ["cap"],
        [names[0], "twin"],
        ["piap"],
        [names[1]],
    ]
    assert float(found["cap"]) == pytest.approx(float(class_aware_ap(heat, truth).nanmean()))
    assert float(found["piap"]) == pytest.approx(float(permutation_invariant_ap(heat, truth).nanmean()))
    for name in (*names, "twin"):
        alone = LocalizationScore(names[0] if name == "twin" else name)
        alone.update(nothing, nothing)
        alone.update(heat, truth)
        expected = alone.compute()
        same({key: found[f"{name}_{key}"] for key in expected}, expected)


def test_a_collection_hands_each_metric_its_arguments() -> None:
    heat, truth, present = case(8)
    collection = MetricCollection({"score": LocalizationScore(), "ap": PixelAveragePrecision()})
    collection.update(heat=heat, truth=truth, present=present)
    found = collection.compute()
    alone = LocalizationScore()
    alone.update(heat, truth, present)
    assert float(found["iou"]) == float(alone.compute()["iou"])
    assert float(found["ap"]) == pytest.approx(float(average_precision(heat, truth).nanmean()))


@pytest.mark.parametrize("name", all_metrics())
def test_what_users_of_torchmetrics_expect(name: str) -> None:
    metric = all_metrics()[name]
    assert (metric.full_state_update, metric.higher_is_better, metric.is_differentiable) == (False, True, False)
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert all(value.isnan() for value in flat(metric.compute()).values())
    first, rest = all_metrics()[name], all_metrics()[name]
    feed(first, slice(0, 5))
    feed(rest, slice(0, 64))
    if isinstance(metric, FRAMES):
        batches = [tuple(x[part] for x in frames(9, 320)) for part in (slice(0, 25), slice(25, 320))]
    else:
        kept = 3 if isinstance(metric, LocalizationScore) else 2
        batches = [tuple(x[part] for x in case(4)[:kept]) for part in (slice(0, 5), slice(5, 64))]
    metric = all_metrics()[name]
    same(metric(*batches[0]), first.compute())  # forward is the value of the batch
    copies = [metric.clone(), pickle.loads(pickle.dumps(metric))]
    for one in (metric, *copies):
        one(*batches[1])
        same(one.compute(), rest.compute())
    first.merge_state(metric)  # what `first` computed before is no longer true
    metric.reset()
    feed(metric, slice(0, 5))
    feed(metric, slice(0, 64))
    same(first.compute(), metric.compute())


@pytest.mark.parametrize("name", all_metrics())
def test_no_conversion_degrades_the_sums(name: str) -> None:
    metric, expected = all_metrics()[name], all_metrics()[name]
    feed(expected, slice(0, 64))
    wrapped = torch.nn.ModuleList([metric])
    for step, part in enumerate((slice(0, 20), slice(20, 30), slice(30, 64))):
        feed(metric, part)
        (metric.set_dtype, lambda dtype: wrapped.half(), wrapped.to)[step](torch.float16)
        assert {state.dtype for state in metric.metric_state.values()} == {torch.float64}
    assert metric.to("cpu") is metric
    same(metric.compute(), expected.compute())
    metric.reset()
    assert {state.dtype for state in metric.metric_state.values()} == {torch.float64}


def test_states_move_to_a_device() -> None:
    metric = ClassAwareAP().to("meta")
    assert {state.device.type for state in metric.metric_state.values()} == {metric.device.type} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", all_metrics())
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_maps_of_an_accelerator(name: str, place: str) -> None:
    metric, expected = all_metrics()[name].to(place), all_metrics()[name]
    count = 3 if isinstance(metric, LocalizationScore) else 2
    batch = frames(9, 320) if isinstance(metric, FRAMES) else case(4)[:count]
    metric.update(*(x.cuda() for x in batch))
    expected.update(*batch)
    assert {state.device.type for state in metric.metric_state.values()} == {place}
    for key, value in flat(metric.compute()).items():
        torch.testing.assert_close(value.cpu(), flat(expected.compute())[key], rtol=0, atol=1e-6)


def test_maps_with_a_gradient_leave_none_in_the_states() -> None:
    heat, truth, _ = case(10, 4)
    score = LocalizationScore()
    score(heat.requires_grad_(), truth)
    assert not any(state.requires_grad for state in score.metric_state.values())


def test_states_of_inference_mode_can_be_updated_outside() -> None:
    score = LocalizationScore()
    with torch.inference_mode():
        score.reset()
        feed(score, slice(0, 5))
    feed(score, slice(5, 64))
    expected = LocalizationScore()
    feed(expected, slice(0, 64))
    same(score.compute(), expected.compute())


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """One that shares no state with those of other tests."""
    from accelerate import Accelerator  # here, for processes that a test spawns need it not
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)


def test_a_training_loop_of_accelerate(accelerator: Accelerator) -> None:
    source = torch.Generator().manual_seed(0)
    truth = torch.zeros(20, 6, 6)
    for picture in range(20):
        row, column = torch.randint(0, 4, (2,), generator=source).tolist()
        truth[picture, row : row + 3, column : column + 3] = 1
    image = torch.stack([truth, 1 - truth], 1) + 0.3 * torch.randn(20, 2, 6, 6, generator=source)
    model = torch.nn.Conv2d(2, 1, 1)
    torch.nn.init.zeros_(model.weight)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    loader = DataLoader(TensorDataset(image, truth), batch_size=8)
    model, optimiser, loader = accelerator.prepare(model, optimiser, loader)
    score = LocalizationScore("framewise-minmax05-oracle").to(accelerator.device)
    ap = PixelAveragePrecision().to(accelerator.device)
    epochs = []
    for _ in range(3):
        for batch, mask in loader:
            heat = model(batch)[:, 0]
            score.update(heat, mask)
            ap.update(heat, mask)
            optimiser.zero_grad()
            accelerator.backward(F.binary_cross_entropy_with_logits(heat, mask))
            optimiser.step()
        epochs.append((float(score.compute()["iou"]), float(ap.compute())))
        score.reset()
        ap.reset()
    with torch.no_grad():
        score.update(model(image)[:, 0], truth)
    assert epochs[0][0] < epochs[-1][0] and epochs[0][1] < epochs[-1][1]
    expected = EVERY["framewise-minmax05-oracle"].iou(model(image)[:, 0].detach(), truth).mean()
    assert float(score.compute()["iou"]) == pytest.approx(float(expected), abs=1e-12)
    assert float(score.compute()["iou"]) > 0.5


# bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*SEVERAL, *FRAMES])
def test_wrong_shapes_and_values_are_named_and_leave_no_trace(kind: type[Metric]) -> None:
    metric = kind()
    heat, truth = frames(1, 4) if kind in FRAMES else case(1, 4)[:2]
    with pytest.raises(ValueError, match=r"expected .*\(.*got .*\("):
        metric.update(heat[0, 0], truth)
    with pytest.raises(ValueError, match=r"expected .*\(.*got .*\("):
        metric.update(heat[:2], truth)
    with pytest.raises(ValueError, match=r"expected truth in \[0, 1\], got \[0, 2\]"):
        metric.update(heat, truth * 2)
    with pytest.raises(ValueError, match="expected finite heat, got 1 NaN"):
        metric.update(torch.where(torch.arange(heat.numel()).view(heat.shape) == 0, math.nan, heat), truth)
    assert all(bool((state == 0).all()) for state in metric.metric_state.values())
    metric.update(heat, truth)
    assert any(bool((state != 0).any()) for state in metric.metric_state.values())


def test_pictures_of_several_sources_are_asked_for() -> None:
    for kind in (ClassAwareAP, PermutationInvariantAP):
        with pytest.raises(ValueError, match=r"shape \(B, S, H, W\), got \(2, 4, 4\) and \(2, 4, 4\)"):
            kind().update(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"both \(B, H, W\) or both .*, got \(2, 4, 4\) and \(2, 1, 4, 4\)"):
        LocalizationScore().update(torch.zeros(2, 4, 4), torch.zeros(2, 1, 4, 4))


def test_present_is_one_bool_per_source() -> None:
    heat, truth, present = case(1, 4)
    with pytest.raises(ValueError, match=r"expected present as bool \(4, 2\), got torch.bool \(4,\)"):
        LocalizationScore().update(heat, truth, present[:, 0])
    with pytest.raises(ValueError, match=r"expected present as bool \(4, 2\), got torch.int64 \(4, 2\)"):
        LocalizationScore().update(heat, truth, present.long())


def test_calls_are_whole() -> None:
    f = AVSBenchF(frames_per_call=5)
    with pytest.raises(ValueError, match="expected whole calls of 5 frames, got 7 frames"):
        f.update(torch.zeros(7, 3, 3), torch.zeros(7, 3, 3))
    with pytest.raises(ValueError, match="expected at least 1 frame per call, or None for one curve of all, got 0"):
        AVSBenchF(frames_per_call=0)


def test_a_protocol_is_one() -> None:
    with pytest.raises(ValueError, match=r"expected protocols among .*got 'area51'"):
        LocalizationScore("area51")
    with pytest.raises(ValueError, match=r"expected one protocol, got 'tvsl': tvsl-0.1, tvsl-0.3"):
        LocalizationScore("tvsl")
    mine = Protocol("mine", MinMax(0.7), at=(0.25,))
    assert LocalizationScore(mine).protocol is mine
    assert LocalizationScore().protocol is PROTOCOLS["framewise-area50-oracle"]
