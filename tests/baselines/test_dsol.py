"""DSOL: correspondence, the object dictionary, and the distribution of a mixture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of

from m2vsl import ops
from m2vsl.baselines.dsol import DSOL, DSOLConfig
from m2vsl.localizer import Stage
from m2vsl.types import Batch


def dsol(**choices: object) -> DSOL:
    torch.manual_seed(0)
    return DSOL(DSOLConfig(**{"encoder": TINY, "dim": 16, **choices}), CLASSES)


def sounding(method: DSOL, image: torch.Tensor, spectrogram: torch.Tensor) -> torch.Tensor:
    """w cos of every cell with the sound, (B, h, w)."""
    cells = method.project(method.visual(image)[-1])
    return method.gain * torch.cosine_similarity(
        cells, method.project_audio(method.audio(spectrogram))[..., None, None]
    )


def pairs_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and sounds of the mixtures that the last stage makes: each solo with the one before it."""
    before = [(i - 1) % len(batch) for i in range(len(batch))]
    images = torch.stack([torch.cat([batch.image[i], batch.image[j]], -1) for i, j in enumerate(before)])
    sounds = torch.stack([torch.maximum(batch.spectrogram[i], batch.spectrogram[j]) for i, j in enumerate(before)])
    return images, sounds


def test_a_pair_belongs_together_where_its_map_is_highest() -> None:
    """Protocol 3.5, stage 1: cross-entropy of sigma(w max cos), matched against 1, another picture against 0."""
    method, batch = dsol().eval(), batch_of(frames=1)
    method.enter(Stage("sound"), [])
    expected = 0.0
    for i in range(4):
        mine = sounding(method, batch.image[i : i + 1], batch.spectrogram[i : i + 1])
        other = sounding(method, batch.image[i - 1 : i or None], batch.spectrogram[i : i + 1])
        expected -= (torch.sigmoid(mine.max()).log() + (1 - torch.sigmoid(other.max())).log()) / 8
    assert set(method(batch)) == {"match"}
    torch.testing.assert_close(method(batch)["match"], expected)


def test_the_objects_of_a_mixture_have_the_distribution_that_is_heard() -> None:
    """Protocol 3.5, stage 2: KL, mean over elements, and half the correspondence with 2 x 2 negatives."""
    method, batch = dsol().eval(), batch_of(frames=1)
    images, sounds = pairs_of(batch)
    heard = torch.softmax(method.teacher[1](method.teacher[0](sounds)), -1)
    cells, logits = method.visual(images)[-1], sounding(method, images, sounds)
    length = sum(float(entry @ entry) for entry in method.dictionary) / CLASSES
    kl, match = 0.0, 0.0
    for b in range(4):
        means = []
        for entry in method.dictionary:
            alike = torch.einsum("dhw,d->hw", cells[b], entry) / length
            means.append((torch.sigmoid(logits[b]) * (method.object_gain * alike + method.object_bias)).mean())
        shown = torch.log_softmax(torch.stack(means), -1)
        kl += (heard[b] * (heard[b].log() - shown)).sum() / (4 * CLASSES)
        wrong = sounding(method, images[b - 2 : (b - 2) + 1 or None], sounds[b : b + 1])
        quarters = [q.max() for half in wrong[0].chunk(2, 0) for q in half.chunk(2, 1)]
        match -= torch.sigmoid(logits[b].max()).log() / 8
        match -= sum((1 - torch.sigmoid(q)).log() for q in quarters) / 4 / 8
    losses = method(batch)
    torch.testing.assert_close(losses["objects"], kl, rtol=2e-3, atol=2e-4)  # products of hundreds of channels
    torch.testing.assert_close(losses["match"], 0.5 * match, rtol=1e-4, atol=1e-5)


def two_kinds() -> list[Batch]:
    """Two batches of pictures that are all dark (classes 0 and 1) or all bright (2): two clusters with little noise."""
    batches = []
    for seed in range(2):
        batch = batch_of(6, frames=1, seed=seed)
        level = torch.tensor([-2.0, 2.0, -2.0, 2.0, -2.0, 2.0])
        image = 0.1 * batch.image + level[:, None, None, None]
        labels = torch.nn.functional.one_hot(torch.tensor([0, 2, 1, 2, 0, 2]), CLASSES).float()
        batches.append(replace(batch, image=image, labels=labels, heard=labels, seen=labels))
    return batches


def test_the_dictionary_is_made_of_the_means_of_clusters_and_named_by_labels() -> None:
    torch.manual_seed(0)
    method, batches = DSOL(DSOLConfig(encoder=TINY, dim=16), 2).eval(), two_kinds()
    batches = [replace(b, labels=torch.stack([1 - b.labels[:, 2], b.labels[:, 2]], 1)) for b in batches]
    method.enter(Stage("objects"), batches)
    assert method.owner.sum(0).tolist() == [1, 1] and method.owner.sum(1).tolist() == [1, 1]
    with torch.no_grad():
        dark = torch.cat([b.image[::2] for b in batches])
        sound = torch.cat([b.spectrogram[::2] for b in batches])
        cells, mask = method.visual(dark)[-1], torch.sigmoid(sounding(method, dark, sound)) > 0.05
        pooled = (cells * mask[:, None]).sum((-2, -1)) / mask.sum((-2, -1))[:, None]  # 4 x 4 cells, all of which sound
    mine = method.dictionary[int(method.owner[:, 0].argmax())]
    torch.testing.assert_close(mine, pooled.mean(0))


def test_labels_may_take_the_place_of_clusters() -> None:
    method, batches = dsol(labels="video").eval(), two_kinds()
    method.enter(Stage("objects"), batches)
    assert torch.equal(method.owner, torch.eye(CLASSES))
    assert not method.dictionary[3:].any() and method.dictionary[:3].any(1).all()
    assert set(method(batches[0])) == {"match", "see", "hear"}


def test_every_class_gets_a_cluster_and_further_clusters_join_their_class() -> None:
    method = dsol(clusters=CLASSES + 2)
    batches = [batch_of(10, frames=1, seed=seed) for seed in range(3)]
    method.enter(Stage("objects"), batches)
    assert method.owner.shape == (CLASSES + 2, CLASSES)
    assert (method.owner.sum(1) == 1).all() and (method.owner.sum(0) >= 1).all()


def test_the_teacher_is_what_was_learnt_before_mixtures_and_stays() -> None:
    method, batch = dsol().train(), batch_of(frames=1)
    method.enter(Stage("sound"), [])
    with torch.no_grad():
        for parameter in (*method.audio.parameters(), *method.hear.parameters()):
            parameter.add_(0.1)
    method.enter(Stage("mixtures"), [])
    before = {key: value.clone() for key, value in method.teacher.state_dict().items()}
    assert all(torch.equal(value, before[f"0.{key}"]) for key, value in method.audio.state_dict().items())
    sum(method(batch).values()).backward()
    assert all(torch.equal(value, before[key]) for key, value in method.teacher.state_dict().items())
    assert not torch.equal(method.audio.stem[1].running_mean, method.teacher[0].stem[1].running_mean)


def test_what_learns_depends_on_the_stage() -> None:
    method, learning = dsol(labels="video"), {}
    for stage in DSOL.stages:
        method.enter(stage, two_kinds())
        learning[stage.name] = {key.split(".")[0] for key, p in method.named_parameters() if p.requires_grad}
    assert not {"see", "hear", "object_gain"} & learning["sound"]
    assert {"see", "hear"} <= learning["objects"] and "object_gain" not in learning["objects"]
    assert "object_gain" in learning["mixtures"] and not {"see", "hear"} & learning["mixtures"]
    assert not any("teacher" in names for names in learning.values())


def test_the_map_of_a_class_is_its_clusters_share() -> None:
    method, batch = dsol(clusters=7).eval(), batch_of()
    method.owner.copy_(torch.eye(7, CLASSES))
    method.owner[5, 1] = method.owner[6, 4] = 1
    with torch.no_grad():
        logits = sounding(method, batch.image, batch.spectrogram)[:, None]
        maps = method._dictionary_maps(method.visual(batch.image)[-1], logits)
    share = torch.softmax(3 * maps, 1)
    expected = share[:, :CLASSES].clone()
    expected[:, 1] += share[:, 5]
    expected[:, 4] += share[:, 6]
    torch.testing.assert_close(method.localize(batch).heat, ops.upsample(expected, (64, 128)))


def test_dilation_leaves_the_border() -> None:
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., 2, 2] = mask[..., 4, 0] = True
    expected = mask.clone()
    for y, x in ((1, 2), (3, 2), (2, 1), (2, 3), (4, 1)):  # of the border cell (4, 0) the inner neighbour alone
        expected[..., y, x] = True
    assert torch.equal(ops.dilated(mask), expected)


def test_k_means_says_when_a_cluster_stays_empty() -> None:
    points = torch.eye(3).repeat(4, 1)
    found = ops.k_means(points, 3)
    assert len(set(found[:3].tolist())) == 3 and torch.equal(found, found[:3].repeat(4))
    with pytest.raises(ValueError, match="one of 4 clusters stays empty, there are 3 distinct vectors"):
        ops.k_means(points, 4)
    with pytest.raises(ValueError, match="one of 4 clusters stays empty, there are 3 distinct vectors"):
        ops.k_means(points[:3], 4)


def test_errors_name_the_method() -> None:
    with pytest.raises(ValueError, match="labels: expected clusters or video, got 'none'"):
        DSOLConfig(labels="none")
    with pytest.raises(ValueError, match="DSOL: expected at least as many clusters as the 5 classes, got 3"):
        dsol(clusters=3)
    with pytest.raises(ValueError, match="DSOL: expected at least two samples"):
        dsol()(batch_of(1, frames=1))
