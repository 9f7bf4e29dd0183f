"""The guided filter as its text says it, window by window; what it is for; and that every row gets the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scenes import CLASSES, TINY, batch_of
from torch import Tensor

from m2vsl.baselines.ez_vsl import EZVSL, EZVSLConfig
from m2vsl.encoders import IMAGENET_MEAN, IMAGENET_STD
from m2vsl.evaluate import evaluate
from m2vsl.frame import to_display
from m2vsl.localizer import Localizer, evaluating
from m2vsl.metrics.segmentation import mean_iou, to_logits
from m2vsl.refine import RefineConfig, Refined, refine, refined
from m2vsl.types import Batch, Losses, Maps

SIDE = 24


def normalised(picture: Tensor) -> Tensor:
    """A picture (..., 3, H, W) in [0, 1] as models see it."""
    return (picture - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(heat: NDArray[np.float64], guide: NDArray[np.float64], window: int, eps: float) -> NDArray[np.float64]:
    """In every window the map is a . colour + b, fitted with a ridge; a pixel is the mean of what its windows say.

    heat: (H, W); guide: (3, H, W). Beyond the edge everything is mirrored.
    """
    r, (height, width) = window // 2, heat.shape
    far = 2 * r
    wide, deep = np.pad(heat, far, "reflect"), np.pad(guide, ((0, 0), (far, far), (far, far)), "reflect")
    said = np.zeros((4, height + far, width + far))  # a and b of the window about each pixel, those beyond the edge too
    for y in range(height + far):
        for x in range(width + far):
            colours = deep[:, y : y + window, x : x + window].reshape(3, -1)
            values = wide[y : y + window, x : x + window].ravel()
            centred = colours - colours.mean(1, keepdims=True)
            covariance = centred @ centred.T / values.size + eps * np.eye(3)
            a = np.linalg.solve(covariance, centred @ (values - values.mean()) / values.size)
            said[:3, y, x], said[3, y, x] = a, values.mean() - a @ colours.mean(1)
    found = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            around = said[:, y : y + window, x : x + window].reshape(4, -1).mean(1)
            found[y, x] = around[:3] @ guide[:, y, x] + around[3]
    return found


def test_it_is_the_filter_of_the_text_inside_of_the_picture() -> None:
    picture, heat = noise(1, 3, SIDE, SIDE), noise(1, 2, SIDE, SIDE, seed=1)
    config = RefineConfig(window=0.25, eps=1e-2)
    found, window = refine(heat, normalised(picture), config), config.pixels(SIDE)
    assert window == 7
    for k in range(2):
        expected = by_hand(heat[0, k].double().numpy(), picture[0].double().numpy(), window, config.eps)
        inner = slice(window, SIDE - window)  # at the edge the two mirror at different times
        np.testing.assert_allclose(found[0, k, inner, inner].numpy(), expected[inner, inner], atol=2e-4)


def test_a_coarse_map_comes_nearer_to_the_thing_that_it_means() -> None:
    truth = torch.zeros(1, 96, 96)
    truth[:, 30:71, 22:60] = 1
    picture = 0.2 + 0.5 * truth[:, None] + 0.1 * noise(1, 3, 96, 96)
    cells = torch.nn.functional.adaptive_avg_pool2d(truth[:, None], 7)
    coarse = torch.nn.functional.interpolate(cells, (96, 96), mode="bilinear", align_corners=True)
    before, after = (mean_iou(to_logits(h[:, 0]), truth) for h in (coarse, refine(coarse, normalised(picture))))
    assert after > before + 0.05 and after > 0.9


def test_a_mirrored_picture_gives_a_mirrored_map_and_a_row_of_a_batch_its_own() -> None:
    picture, heat = normalised(noise(3, 3, SIDE, SIDE)), noise(3, 2, SIDE, SIDE, seed=1)
    found = refine(heat, picture)
    torch.testing.assert_close(refine(heat.flip(-1), picture.flip(-1)), found.flip(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(refine(heat[1:2], picture[1:2]), found[1:2], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(refine(3 * heat - 5, picture), 3 * found - 5, atol=1e-3, rtol=1e-4)


def test_frames_side_by_side_know_nothing_of_each_other() -> None:
    picture, heat = normalised(noise(1, 3, SIDE, 2 * SIDE)), noise(1, 1, SIDE, 2 * SIDE, seed=1)
    halves = [refine(heat[..., s], picture[..., s]) for s in (slice(0, SIDE), slice(SIDE, None))]
    assert torch.equal(refine(heat, picture), torch.cat(halves, -1))


def test_a_picture_that_is_no_row_of_squares_is_one_frame() -> None:
    picture, heat = normalised(noise(1, 3, SIDE, SIDE + 17)), noise(1, 1, SIDE, SIDE + 17, seed=1)
    found = refine(heat, picture)
    torch.testing.assert_close(refine(heat.mT, picture.mT), found.mT, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -7.5])
def test_a_constant_map_stays_as_it_is(value: float) -> None:
    heat = torch.full((2, 1, SIDE, SIDE), value)
    assert torch.equal(refine(heat, normalised(noise(2, 3, SIDE, SIDE))), heat)


def test_logits_stay_logits_and_keep_their_border() -> None:
    picture, logits = normalised(noise(2, 3, SIDE, SIDE)), 20 * noise(2, 1, SIDE, SIDE, seed=1) - 10
    classes, presence = torch.tensor([3]), torch.tensor([[0.5], [0.1]])
    found = refined(Maps(logits, classes, presence), picture, "logits")
    expected = refine(torch.sigmoid(logits), picture)
    assert torch.equal(found.heat > 0, expected > 0.5)
    assert found.classes is classes and found.presence is presence
    for reads in ("heat", "positive"):
        assert torch.equal(refined(Maps(logits, classes), picture, reads).heat, refine(logits, picture))  # type: ignore[arg-type]


def test_half_precision_and_no_gradient_are_fine() -> None:
    picture, heat = normalised(noise(1, 3, SIDE, SIDE)), noise(1, 1, SIDE, SIDE, seed=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = refine(heat.bfloat16(), picture)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, refine(heat.bfloat16().float(), picture), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("heat", "image", "told"),
    [
        ((2, 1, 24, 24), (2, 3, 24, 48), "expected heat as wide as the pictures, 48, got 24"),
        ((2, 1, 24, 24), (3, 3, 24, 24), r"expected heat \(B, K, H, W\) and pictures"),
        ((2, 24, 24), (2, 3, 24, 24), r"got \(2, 24, 24\) and \(2, 3, 24, 24\)"),
        ((2, 1, 24, 24), (2, 1, 24, 24), r"pictures \(B, 3, H, W\)"),
        ((2, 1, 1, 5), (2, 3, 1, 5), "expected frames of at least 2 x 2 pixels, got 1 x 1"),
    ],
)
def test_maps_and_pictures_have_to_fit(heat: tuple[int, ...], image: tuple[int, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        refine(torch.rand(heat), torch.rand(image))


class Told(Localizer):
    """Logits of two classes, the same for all, and what it was asked under."""

    named, listens, reads, sources = True, False, "logits", 2

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, batch: Batch) -> Losses:
        return {"none": torch.zeros(())}

    def localize(self, batch: Batch) -> Maps:
        self.modes.append((self.training, torch.is_grad_enabled()))
        heat = 20 * noise(1, 2, *batch.image.shape[-2:]).expand(len(batch), -1, -1, -1) - 10
        return Maps(heat, torch.tensor([4, 1]), torch.full((len(batch), 2), 0.25))


def test_a_refined_localizer_is_the_localizer_but_for_its_heat() -> None:
    batch, told = batch_of(2, size=SIDE), Told()
    wrapped, plain = Refined(told, config := RefineConfig(0.4, 1e-2)), told.localize(batch)
    assert (wrapped.named, wrapped.listens, wrapped.reads, wrapped.sources) == (True, False, "logits", 2)
    found = wrapped.localize(batch)
    assert torch.equal(found.heat, refined(plain, batch.image, "logits", config).heat)
    assert not torch.equal(found.heat, refined(plain, batch.image, "logits").heat)
    assert torch.equal(found.classes, plain.classes) and found.presence is not None
    assert plain.presence is not None and torch.equal(found.presence, plain.presence)
    assert told.modes[-1] == (True, False)
    with evaluating(wrapped):
        wrapped.localize(batch)
    assert told.modes[-1] == (False, False) and told.training
    assert not Refined(Told().eval()).training
    with pytest.raises(RuntimeError, match="expected Told itself to be trained, got it refined"):
        wrapped(batch)


def test_a_refined_method_is_evaluated_like_any_other() -> None:
    torch.manual_seed(0)
    method, batch = EZVSL(EZVSLConfig(TINY), CLASSES), batch_of(2, frames=1)
    plain, better = evaluate(method, [batch]).scalars, evaluate(Refined(method), [batch]).scalars
    assert plain.keys() == better.keys() and plain != better


@pytest.mark.parametrize("choices", [{"window": 0.0}, {"window": 0.6}, {"eps": 0.0}])
def test_a_window_lies_inside_of_a_frame(choices: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected a window in \(0, 0.5\] of a frame and eps > 0"):
        RefineConfig(**choices)


def test_the_window_is_the_best_of_three_on_photographs_that_no_table_tests(shared: Path) -> None:
    from m2vsl.data.folder import FolderConfig, FolderDataset

    root = shared / "data" / "photosound"
    if not root.is_dir():
        pytest.skip(f"photosound is not in {shared}")
    held = FolderDataset(FolderConfig(str(root), size=64, fold=1, val_fold=2), "test", "single")
    samples = [held[i] for i in range(0, len(held), 6)]
    image, truth = torch.stack([s.image for s in samples]), torch.stack([s.truth.mask[0] for s in samples])
    cells = torch.nn.functional.adaptive_avg_pool2d(truth[:, None], 7)
    coarse = torch.nn.functional.interpolate(cells, (64, 64), mode="bilinear", align_corners=True)
    scores = {
        window: mean_iou(to_logits(refine(coarse, image, RefineConfig(window))[:, 0]), truth)
        for window in (0.1, RefineConfig().window, 0.5)
    }
    assert max(scores, key=scores.__getitem__) == RefineConfig().window
    assert scores[RefineConfig().window] > mean_iou(to_logits(coarse[:, 0]), truth)
    assert to_display(image[0]).max() <= 1
