"""M2VSL: every choice of its configuration runs, and does what its name says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch.nn import functional as F

from m2vsl import losses, ops
from m2vsl.audio import AUDIO, log_spectrogram, remixed
from m2vsl.encoders import EncoderConfig
from m2vsl.model import M2VSL, MMT, M2VSLConfig
from m2vsl.types import Batch

CHOICES: dict[str, dict[str, Any]] = {
    "the paper": {},
    "MMC alone": {"mmt": False},
    "MMT alone": {"scales": (4,)},
    "two scales": {"scales": (2, 4)},
    "one direction": {"symmetric": False},
    "scales averaged": {"scale_sum": "mean"},
    "bags of 5 x 5": {"pool": "5x5"},
    "tokens of 3 x 3": {"tokens": 3},
    "one transformer": {"joint": True},
    "literal": {"literal_attn": True, "grouping": False},
    "literal and one": {"literal_attn": True, "joint": True},
    "no grouping": {"grouping": False},
    "tokens from zero": {"token_init": "zeros"},
    "one block, two heads": {"depth": 1, "heads": 2},
    "largest over scales": {"fuse": "max"},
    "last scale": {"fuse": "last"},
    "learned mean": {"fuse": "learned", "map_weight": 1.0},
    "gated": {"gate": True},
    "after": {"map_features": "after"},
    "before and after": {"map_features": "both"},
    "before and after, learned": {"map_features": "both", "fuse": "learned", "map_weight": 1.0},
    "after, one transformer": {"map_features": "after", "joint": True},
    "class losses summed": {"class_reduction": "sum"},
    "heard from the sound": {"heard_from": "sound"},
    "same class left out": {"same_class_negatives": False},
    "same class left out, MMC alone": {"same_class_negatives": False, "mmt": False},
    "soft peak": {"peak": "soft"},
    "top down": {"top_down": True},
    "loss on maps": {"map_weight": 0.5},
    "handed on": {"spread": 2},
    "sounds mixed once more": {"heard_from": "sound", "remix": True},
    "deaf to loudness": {"loudness": False},
    "resnet18": {"encoder": replace(TINY, visual="resnet18", weights="none")},
    "frozen": {"encoder": replace(TINY, freeze=True)},
}


def model(**choices: Any) -> M2VSL:
    """Tiny, with the weights of seed 0."""
    torch.manual_seed(0)
    return M2VSL(M2VSLConfig(**{"encoder": TINY, "drop_path": 0.0, **choices}), CLASSES)


def names(choices: dict[str, Any]) -> set[str]:
    """The losses that a configuration has."""
    if not choices.get("mmt", True):
        return {"mmc"}
    return {"mmc", "token", "seen", "heard"} | ({"maps"} if choices.get("map_weight") else set())


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_every_choice_learns_and_localizes(choices: dict[str, Any]) -> None:
    method, batch = model(**choices), batch_of()
    found = method(batch)
    assert set(found) == names(choices)
    assert all(v.ndim == 0 and v.dtype == torch.float32 and torch.isfinite(v) for v in found.values())
    sum(found.values()).backward()
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None] == []
    still = {name for name, p in trainable.items() if p.ndim > 1 and not p.grad.abs().any()}
    assert still <= {
        "mmt.group.audio.look.query.weight",  # the sound is one token: attention has nothing to choose
        "token_head.weight" if choices.get("token_init") == "zeros" else "",  # in the first step
    }
    maps = method.eval().localize(batch)
    kinds = CLASSES if choices.get("mmt", True) else 1
    assert maps.heat.shape == (4, kinds, 64, 128) and torch.isfinite(maps.heat).all()
    assert not maps.heat.requires_grad
    assert maps.classes.tolist() == (list(range(CLASSES)) if kinds > 1 else [-1])
    assert maps.presence is None if kinds == 1 else maps.presence.shape == (4, CLASSES)


@pytest.mark.parametrize(
    "choices",
    [{k: "nonsense"} for k in ("pool", "scale_sum", "token_init", "fuse", "map_features", "class_reduction")]
    + [{k: "nonsense"} for k in ("peak", "heard_from", "presence")]
    + [{"view": 8}, {"scales": ()}, {"scales": (0, 4)}, {"scales": (5,)}, {"scales": (4, 3)}, {"scales": (4, 4)}]
    + [{"map_features": k, "mmt": False} for k in ("after", "both")]
    + [{"map_weight": 1.0, "mmt": False}, {"gate": True, "mmt": False}]
    + [{"fuse": "learned"}],
    ids=str,
)
def test_what_cannot_be_is_refused(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(choices))):
        M2VSLConfig(**choices)


def test_the_maps_are_continuous_cosines() -> None:
    heat = model().eval().localize(batch_of()).heat
    assert heat.abs().max() <= 1 + 1e-5
    assert heat[0, 0].unique().numel() > 1000  # neither clipped nor stepped


class TestMMT:
    """Tokens in, class slots and grids out."""

    @staticmethod
    def inputs(width: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        drawn = torch.Generator().manual_seed(1)
        sides = [(16, 16 * width), (8, 8 * width), (4, 4 * width), (2, 2 * width)]
        return [torch.randn(3, 32, *side, generator=drawn) for side in sides], torch.randn(3, 32, generator=drawn)

    @pytest.mark.parametrize(("width", "expected"), [(1, 100), (2, 200)], ids=["one frame", "duet"])
    def test_hundred_tokens_a_frame_and_one_of_the_sound(self, width: int, expected: int) -> None:
        mmt, lengths = MMT(M2VSLConfig(encoder=TINY), CLASSES), {}
        for name, phi in mmt.phi.items():
            phi.register_forward_pre_hook(lambda _, x, name=name: lengths.update({name: x[0].shape[1]}))
        slots = mmt(*self.inputs(width))
        assert lengths == {"visual": expected + CLASSES, "audio": 1 + CLASSES}
        assert [tuple(g.shape) for g in slots.grids] == 4 * [(3, 32, 5, 5 * width)]
        assert slots.audio.shape == slots.visual.shape == (3, CLASSES, 32)

    def test_a_literal_layer_is_the_printed_attention_over_tokens_and_classes(self) -> None:
        """Eq. (5) with Eq. (6), token by token, and the residual that the block keeps."""
        config = M2VSLConfig(encoder=TINY, literal_attn=True, grouping=False, depth=1, scales=(3, 4), tokens=2)
        mmt = MMT(config, CLASSES)
        pyramid, sound = self.inputs(1)
        slots = mmt(pyramid[2:], sound)
        for b in range(3):
            x = []
            for scale, stage in zip(mmt.scale, pyramid[2:], strict=True):
                pooled = F.adaptive_avg_pool2d(stage[b], 2)
                x += [pooled[:, i, j] + scale for i in range(2) for j in range(2)]
            x += list(mmt.tokens)
            out = []
            for j in range(len(x)):
                weights = torch.softmax(torch.stack([x[j] @ k / 32**0.5 for k in x]), 0)
                out.append(x[j] + sum(w * k for w, k in zip(weights, x, strict=True)))
            torch.testing.assert_close(slots.visual[b], torch.stack(out[8:]))
            torch.testing.assert_close(slots.grids[1][b].flatten(1).T, torch.stack(out[4:8]))

    def test_the_joint_branch_hears_through_its_tokens(self) -> None:
        mmt = MMT(M2VSLConfig(encoder=TINY, joint=True), CLASSES).eval()
        pyramid, sound = self.inputs(1)
        one, other = mmt(pyramid, sound), mmt(pyramid, -sound)
        assert torch.equal(one.audio, one.visual)
        assert not torch.allclose(one.visual, other.visual)

    def test_the_branches_do_not_mix(self) -> None:
        mmt = MMT(M2VSLConfig(encoder=TINY), CLASSES).eval()
        pyramid, sound = self.inputs(1)
        one, other = mmt(pyramid, sound), mmt([-v for v in pyramid], sound)
        assert torch.equal(one.audio, other.audio) and not torch.allclose(one.visual, other.visual)

    def test_class_tokens_begin_as_asked(self) -> None:
        tokens = MMT(M2VSLConfig(encoder=replace(TINY, dim=512)), 40).tokens
        assert float(tokens.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert not MMT(M2VSLConfig(encoder=TINY, token_init="zeros"), CLASSES).tokens.any()


class TestContrast:
    """What `forward` contrasts, put together by hand."""

    @staticmethod
    def parts(method: M2VSL, batch: Batch) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
        pyramid, sound = (
            method.pyramid(method.visual(batch.image)),
            method.project_audio(method.audio(batch.spectrogram)),
        )
        owner, which = batch.heard.nonzero(as_tuple=True)
        return pyramid, method.mmt(pyramid, sound).audio[owner, which], owner, which

    def test_every_sounding_class_is_a_query_of_its_picture(self) -> None:
        method, batch = model().eval(), batch_of()
        pyramid, queries, owner, _ = self.parts(method, batch)
        assert len(queries) == 8 and owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        scores = [torch.einsum("bdhw,nd->bnhw", ops.unit(v), ops.unit(queries)).flatten(2).amax(-1) for v in pyramid]
        torch.testing.assert_close(method(batch)["mmc"], losses.mmc(scores, owner, 0.03))

    def test_pairs_of_one_class_are_neither_positive_nor_negative_if_asked(self) -> None:
        method, batch = model(same_class_negatives=False).eval(), batch_of()
        pyramid, queries, owner, which = self.parts(method, batch)
        excluded = torch.zeros(4, 8, dtype=torch.bool)
        for b in range(4):
            for n in range(8):
                excluded[b, n] = bool(batch.heard[b, which[n]]) and int(owner[n]) != b
        assert excluded.any()
        scores = [ops.peak(ops.similarity(ops.unit(v), ops.unit(queries))) for v in pyramid]
        torch.testing.assert_close(method(batch)["mmc"], losses.mmc(scores, owner, 0.03, excluded))

    def test_without_class_tokens_a_mixture_with_a_shared_class_is_left_out(self) -> None:
        method, batch = model(same_class_negatives=False, mmt=False).eval(), batch_of()
        pyramid = method.pyramid(method.visual(batch.image))
        sounds = ops.unit(method.project_audio(method.audio(batch.spectrogram)))
        excluded = (batch.heard @ batch.heard.T > 0) & ~torch.eye(4, dtype=torch.bool)
        scores = [ops.peak(ops.similarity(ops.unit(v), sounds)) for v in pyramid]
        expected = losses.mmc(scores, torch.arange(4), 0.03, excluded)
        torch.testing.assert_close(method(batch)["mmc"], expected)

    @pytest.mark.parametrize(
        "choices", [{"scale_sum": "mean"}, {"symmetric": False}, {"peak": "soft"}, {"pool": "5x5"}]
    )
    def test_each_choice_changes_the_loss(self, choices: dict[str, Any]) -> None:
        batch = batch_of()
        asked, paper = model(**choices).eval()(batch)["mmc"], model().eval()(batch)["mmc"]
        assert not torch.isclose(asked, paper)
        if choices == {"scale_sum": "mean"}:
            torch.testing.assert_close(asked, paper / 4)


def test_a_louder_recording_is_the_same_to_ears_without_loudness() -> None:
    batch = batch_of()
    louder = replace(batch, spectrogram=batch.spectrogram + 0.3)  # a factor, in the logarithm
    for loudness in (True, False):
        method = model(loudness=loudness).eval()
        same = torch.allclose(method.localize(batch).heat, method.localize(louder).heat, atol=1e-4)
        assert same is not loudness


def test_a_muted_source_is_no_query_and_its_label_still_counts_for_the_picture() -> None:
    method = model(same_class_negatives=False, heard_from="sound", map_weight=1.0).eval()
    whole = batch_of()
    heard = whole.heard.clone()
    heard[0, 1] = 0  # picture 0 shows classes 0 and 1; class 1, which picture 1 shows too, is muted
    muted, unlabelled = replace(whole, heard=heard), replace(whole, heard=heard, labels=heard)
    one, other, all_sound = method(muted), method(unlabelled), method(whole)
    assert torch.equal(one["seen"], all_sound["seen"]) and not torch.isclose(one["seen"], other["seen"])
    assert torch.equal(one["maps"], all_sound["maps"]) and not torch.isclose(one["maps"], other["maps"])
    assert not torch.isclose(one["heard"], all_sound["heard"])
    assert torch.equal(one["heard"], other["heard"])
    assert not torch.isclose(one["mmc"], other["mmc"])  # picture 0 would be a negative of the other sounds of class 1


def test_frames_are_looked_at_from_as_near_as_asked() -> None:
    """A view of twice the size is what the trunk sees of enlarged pictures; the map comes at the picture's own size."""
    batch, near, plain = batch_of(), model(view=128).eval(), model().eval()
    enlarged = replace(batch, image=ops.upsample(batch.image, (128, 256), align_corners=False))
    found, expected = near.localize(batch).heat, plain.localize(enlarged).heat
    assert found.shape[-2:] == (64, 128) and expected.shape[-2:] == (128, 256)
    torch.testing.assert_close(found[..., 0, 0], expected[..., 0, 0])
    torch.testing.assert_close(found[..., -1, -1], expected[..., -1, -1])
    assert torch.equal(model(view=64).eval().localize(batch).heat, plain.localize(batch).heat)


def test_lengths_of_cells_are_kept_beside_their_mean() -> None:
    cells = torch.randn(3, 8, 4, 5)
    kept = ops.evened(cells)
    for b in range(3):
        mean = sum(cells[b, :, y, x].norm() for y in range(4) for x in range(5)) / 20
        torch.testing.assert_close(kept[b], cells[b] / mean)
    assert torch.equal(ops.evened(torch.zeros(1, 8, 2, 2)), torch.zeros(1, 8, 2, 2))
    one, other = (model(lengths=on).eval().localize(batch_of()).heat for on in (True, False))
    assert not torch.allclose(one, other)


def test_remixed_sounds_come_after_the_batch_and_keep_the_louder_of_two_cells() -> None:
    torch.manual_seed(0)
    batch = batch_of()
    spectrogram, heard = remixed(batch.spectrogram, batch.heard)
    assert torch.equal(spectrogram[:4], batch.spectrogram) and torch.equal(heard[:4], batch.heard)
    partner = []
    for b in range(4):
        fits = [k for k in range(4) if torch.equal(spectrogram[4 + b], batch.spectrogram[[b, k]].amax(0))]
        partner += fits
        assert torch.equal(heard[4 + b], batch.heard[[b, fits[0]]].amax(0))
    assert sorted(partner) == [0, 1, 2, 3]


def test_the_louder_of_two_cells_is_nearly_the_logarithm_of_the_sum() -> None:
    drawn = torch.Generator().manual_seed(0)
    one, two = (torch.randn(257 * 220 + 512, generator=drawn) * s for s in (1.0, 0.2))
    config = AUDIO["paper300"]
    a, b, both = (log_spectrogram(w[None], config) for w in (one, two, one + two))
    assert float((torch.maximum(a, b) - both).abs().mean()) < 0.05  # of about 1.5


def test_class_weight_scales_the_three_class_losses_alone() -> None:
    one, half = model().eval()(batch_of()), model(class_weight=0.5).eval()(batch_of())
    for name in ("token", "seen", "heard"):
        torch.testing.assert_close(half[name], one[name] / 2)
    torch.testing.assert_close(half["mmc"], one["mmc"])


@pytest.mark.parametrize("fuse", ["mean", "max", "last", "learned"])
def test_the_map_is_made_of_the_scales_cosines(fuse: str) -> None:
    method, batch = model(fuse=fuse, map_weight=1.0).eval(), batch_of()
    if fuse == "learned":
        torch.nn.init.normal_(method.fusion)
    with torch.no_grad():
        pyramid = method.pyramid(method.visual(batch.image))
        slots = method.mmt(pyramid, method.project_audio(method.audio(batch.spectrogram)))
        maps = [ops.similarity(ops.unit(v), ops.unit(slots.audio, -1)) for v in pyramid]
        maps = torch.stack([F.interpolate(m, (64, 128), mode="bilinear", align_corners=True) for m in maps])
        expected = {"mean": maps.mean(0), "max": maps.amax(0), "last": maps[-1]}
        if fuse == "learned":
            weights = torch.softmax(method.fusion, 0)
            expected[fuse] = sum(w * m for w, m in zip(weights, maps, strict=True))
    torch.testing.assert_close(method.localize(batch).heat, expected[fuse])


def test_a_gated_map_is_multiplied_by_its_presence() -> None:
    plain, gated = (model(gate=gate).eval().localize(batch_of()) for gate in (False, True))
    assert plain.presence is not None
    torch.testing.assert_close(gated.heat, plain.heat * plain.presence[..., None, None])


def test_presence_may_ask_ears_and_eyes() -> None:
    heard, both = (model(presence=p).eval() for p in ("heard", "both"))
    batch = batch_of()
    with torch.no_grad():
        sound = heard.project_audio(heard.audio(batch.spectrogram))
        slots = heard.mmt(heard.pyramid(heard.visual(batch.image)), sound)
        seen = torch.sigmoid(heard.seen_head(slots.visual).squeeze(-1))
    one, other = heard.localize(batch), both.localize(batch)
    torch.testing.assert_close(other.presence, one.presence * seen)
    assert torch.equal(one.heat, other.heat)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("gate", True), ("presence", "both"), ("spread", 2), ("spread_temperature", 0.5)],
        *[("lengths", True), ("view", 96)],
    ],
)
def test_what_is_read_at_test_alone_changes_no_loss(name: str, value: Any) -> None:
    assert name in M2VSLConfig.AT_TEST and len(M2VSLConfig.AT_TEST) == 6
    one, other = model().eval()(batch_of()), model(**{name: value}).eval()(batch_of())
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_top_down_adds_what_is_coarser() -> None:
    method, batch = model(top_down=True).eval(), batch_of()
    with torch.no_grad():
        stages = method.visual(batch.image)
        levels = [conv(v) for conv, v in zip(method.project, stages, strict=True)]
        got = method.pyramid(stages)
        coarser = F.interpolate(levels[3], levels[2].shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(got[3], levels[3])
    torch.testing.assert_close(got[2], levels[2] + coarser)


def test_similarities_and_losses_stay_float32_under_autocast() -> None:
    method, batch = model().eval(), batch_of()
    with torch.autocast("cpu", torch.bfloat16):
        found = method(batch)
    assert {v.dtype for v in found.values()} == {torch.float32}
    exact = method(batch)
    for name, value in found.items():
        torch.testing.assert_close(value, exact[name], rtol=0.2, atol=0.05)


def test_the_papers_model_has_the_papers_size() -> None:
    """ResNet-18 twice, and a projection to D = 512 for each stage and for the sound."""
    with torch.device("meta"):
        paper = M2VSL(M2VSLConfig(encoder=EncoderConfig("resnet18", "none", freeze=False, audio_width=64)), 37)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in paper.named_children()}
    assert sizes["visual"] == 11_176_512 and sizes["audio"] == 11_170_240
    assert sizes["project_audio"] == 512 * 512 + 512
    assert sizes["project"] == sum(512 * c + 512 for c in (64, 128, 256, 512))
