"""What the metrics promise of every map, truth and batch, each tried on fifty small cases, always the same ones."""

import math
from itertools import pairwise, product
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from m2vsl.evaluate import score
from m2vsl.metrics import fast
from m2vsl.metrics.canvas import frame_count, on_canvas, own_frame, own_part
from m2vsl.metrics.matching import choosable, match, merge_same_class
from m2vsl.metrics.overlap import (
    Above,
    Absolute,
    Area,
    Matched,
    MinMax,
    OfMax,
    binarise,
    bound,
    consensus_iou,
    heat_iou,
    success_auc,
    success_rate,
)
from m2vsl.metrics.protocols import EVERY, PROTOCOLS
from m2vsl.metrics.ranking import (
    average_precision,
    average_precision_as_released_avgn,
    average_precision_matrix,
    class_aware_ap,
    permutation_invariant_ap,
)
from m2vsl.metrics.released import average_precision_as_released_noprior, consensus_iou_as_released_avgn
from m2vsl.metrics.segmentation import f_score, frame_f_curves, frame_iou, to_logits
from m2vsl.metrics.tally import interval
from m2vsl.types import Maps, Truth

promise = settings(max_examples=50, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
fractions = st.sampled_from([0.5, 0.25, 0.1, 0.9, 1.0])
dtypes = st.sampled_from([torch.float32, torch.float64])
RULES = (Area(0.5), Above(0.5), OfMax(0.2), MinMax(0.5), Absolute(0.0), Matched())
INCREASING = {  # strictly, also in float64, on the values of `ranks`
    "affine": lambda h: 3 * h - 40,
    "exp": torch.exp,
    "atan": torch.atan,
    "cube": lambda h: h**3 + h,
    "huge": lambda h: 1e30 * h,
    "small": lambda h: 1e-3 * h,
}


# cases: a shape, values with or without ties, votes ------------------------------------------------------------------


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def ranks(seed, shape, levels):
    """float64 multiples of 0.1 around 0, -0.0 among them: `levels` different ones, or every pixel its own for None."""
    if levels is None:
        order = torch.rand(shape, generator=drawn(seed)).flatten(-2).argsort(-1).view(shape)
        return (order - shape[-2] * shape[-1] // 2) / 10
    values = torch.randint(0, levels, shape, generator=drawn(seed)) - levels // 2
    return values.double() / 10 * torch.where(torch.rand(shape, generator=drawn(seed + 1)) < 0.5, 1, -1)


def votes(seed, shape, kind, weights):
    """float32 truths: each of its own density, each of one pixel, all empty or all full."""
    density = torch.rand((*shape[:-2], 1, 1), generator=drawn(seed)) * 1.4 - 0.2
    some = torch.rand(shape, generator=drawn(seed + 1)) < density
    one = (torch.rand((*shape[:-2], shape[-2] * shape[-1]), generator=drawn(seed)).argsort(-1) == 0).view(shape)
    support = {"some": some, "one": one, "empty": torch.zeros_like(some), "full": torch.ones_like(some)}[kind]
    return support * torch.tensor(weights)[torch.randint(0, len(weights), shape, generator=drawn(seed + 2))]


@st.composite
def scenes(draw, axes=(0, 3), ties=True, kinds=("some", "some", "one", "empty", "full")):
    """Maps and truths (..., H, W) of one shape, of one to three frames or none that is square."""
    leading = draw(st.lists(st.integers(1, 3), min_size=axes[0], max_size=axes[1]))
    height = draw(st.integers(1, 5))
    shape = (*leading, height, draw(st.sampled_from([height, 2 * height, 3 * height, 7])))
    heat = ranks(draw(seeds), shape, draw(st.sampled_from([1, 2, 5, 40])) if ties else None).to(draw(dtypes))
    if ties and draw(st.booleans()):
        heat = heat.clamp(max=0.1)  # saturated
    weights = draw(st.sampled_from([(1.0,), (0.5, 1.0), (1 / 3, 2 / 3, 1.0)]))
    return heat, votes(draw(seeds), shape, draw(st.sampled_from(kinds)), weights)


@st.composite
def groups(draw, most=3, further=0):
    """Maps (B, K, H, W) and disjoint truths (B, S, H, W), some of them empty, K = S + up to `further`."""
    batch, sources, height, width = (draw(st.integers(1, n)) for n in (3, most, 4, 6))
    height += sources  # room for each
    owner = torch.randint(-1, sources, (batch, 1, height, width), generator=drawn(draw(seeds)))
    truth = (owner == torch.arange(sources)[:, None, None]).float()
    maps = sources + draw(st.integers(0, further))
    return ranks(draw(seeds), (batch, maps, height, width), draw(st.sampled_from([None, 2, 5]))), truth


def iou_of(heat, truth, rule):
    return consensus_iou(binarise(heat, rule, truth), truth)


def same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12, equal_nan=True)


# what a metric does not see ------------------------------------------------------------------------------------------


@promise
@given(scenes(), st.sampled_from(sorted(INCREASING)), fractions)
def test_area_matched_and_average_precision_read_the_order_alone(scene, name, fraction):
    heat, truth = scene[0].double(), scene[1]
    mapped = INCREASING[name](heat)
    for rule in (Area(fraction), Matched()):
        assert torch.equal(binarise(mapped, rule, truth), binarise(heat, rule, truth))
    same(average_precision(mapped, truth), average_precision(heat, truth))
    same(average_precision_as_released_avgn(mapped, truth), average_precision_as_released_avgn(heat, truth))


@promise
@given(groups(further=2), st.sampled_from(sorted(INCREASING)))
def test_each_map_may_have_a_unit_of_its_own(group, name):
    heat, truth = group
    mapped = heat.clone()
    mapped[:, 0] = INCREASING[name](heat[:, 0])
    same(permutation_invariant_ap(mapped, truth), permutation_invariant_ap(heat, truth))
    sources = truth.shape[1]
    same(class_aware_ap(mapped[:, :sources], truth), class_aware_ap(heat[:, :sources], truth))


@pytest.mark.parametrize("rule", [MinMax(0.5), Absolute(0.5), OfMax(0.5)])
def test_rules_with_a_level_read_the_values(rule):
    heat = torch.tensor([[0.0, 0.6, 1.0]])
    assert binarise(heat, rule).tolist() == [[False, True, True]]
    assert binarise(heat**3, rule).tolist() == [[False, False, True]]


def test_below_a_millionth_there_is_no_order():
    heat, truth = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    assert float(average_precision(heat, truth)) == 1
    assert float(average_precision(heat * 1e-8, truth)) == 0.25, "small heat must come in another unit"


@promise
@given(scenes(), st.integers(-3, 30), st.integers(-100, 100))
def test_min_max_does_not_see_unit_and_offset(scene, exponent, offset):
    heat = scene[0].double().mul(10).round()  # whole numbers: the affine map is exact
    varied = (heat.amax((-2, -1)) > heat.amin((-2, -1)))[..., None, None].expand(heat.shape)
    mapped = 2.0**exponent * heat + offset
    for level in (0.1, 0.3, 0.5):
        assert torch.equal(binarise(mapped, MinMax(level))[varied], binarise(heat, MinMax(level))[varied])
    assert torch.equal((to_logits(mapped) > 0)[varied], (to_logits(heat) > 0)[varied])
    constant = mapped[~varied]
    assert torch.equal(binarise(mapped, MinMax(0.5))[~varied], constant >= 0.5), "a constant is compared as it is"


@promise
@given(scenes(axes=(1, 1)), seeds)
def test_pictures_do_not_see_one_another(scene, seed):
    heat, truth = scene
    order = torch.randperm(len(heat), generator=drawn(seed))
    for rule in RULES:
        same(iou_of(heat[order], truth[order], rule), iou_of(heat, truth, rule)[order])
    for measure in (average_precision, frame_iou, frame_f_curves, average_precision_as_released_avgn):
        same(measure(heat[order], truth[order]), measure(heat, truth)[order])
    assert f_score(heat[order], truth[order]) == pytest.approx(f_score(heat, truth), abs=1e-12)
    for name in ("framewise-area50-oracle", "sourcewise-area50-oracle"):
        same(PROTOCOLS[name].iou(heat[order], truth[order]), PROTOCOLS[name].iou(heat, truth)[order])


@promise
@given(scenes(axes=(1, 1)), st.booleans())
def test_mirrored_and_turned_together_is_the_same(scene, ties):
    heat, truth = scene
    heat = heat if ties else heat + torch.arange(heat[0].numel()).view(heat.shape[-2:]) / 1e4
    for turned in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)):
        for rule in RULES:
            if not ties or rule != Matched():  # which breaks ties in reading order
                same(iou_of(turned(heat), turned(truth), rule), iou_of(heat, truth, rule))
        same(average_precision(turned(heat), turned(truth)), average_precision(heat, truth))
        same(frame_iou(turned(heat), turned(truth)), frame_iou(heat, truth))
    sourcewise = PROTOCOLS["sourcewise-area50-oracle"]
    same(sourcewise.iou(heat.flip(-1), truth.flip(-1)), sourcewise.iou(heat, truth))


@promise
@given(groups(further=2), seeds)
def test_permuted_maps_leave_piap_and_permuted_pairs_leave_cap(group, seed):
    heat, truth = group
    sources = truth.shape[1]
    order, pairs = (torch.randperm(n, generator=drawn(seed)) for n in (heat.shape[1], sources))
    same(permutation_invariant_ap(heat[:, order], truth), permutation_invariant_ap(heat, truth))
    own = heat[:, :sources]
    same(class_aware_ap(own[:, pairs], truth[:, pairs]), class_aware_ap(own, truth))
    same(permutation_invariant_ap(own[:, pairs], truth[:, pairs]), permutation_invariant_ap(own, truth))


@promise
@given(scenes(), st.sampled_from(RULES))
def test_layout_precision_and_gradient_do_not_matter(scene, rule):
    heat, truth = scene[0].double().mul(10), scene[1]  # whole numbers up to 20: exact in every precision
    laid = heat.transpose(-1, -2).contiguous().transpose(-1, -2)
    expected = iou_of(heat, truth, rule)
    for given_ in (laid, heat.half(), heat.bfloat16(), heat.float(), heat.clone().requires_grad_()):
        same(iou_of(given_, truth, rule), expected)
        found = average_precision(given_, truth)
        same(found, average_precision(heat, truth))
        assert not found.requires_grad


# order among numbers -------------------------------------------------------------------------------------------------


@promise
@given(groups(further=2))
def test_piap_is_at_least_cap_and_at_most_the_best_map_of_each(group):
    heat, truth = group
    sources = truth.shape[1]
    piap, cap = permutation_invariant_ap(heat, truth), class_aware_ap(heat[:, :sources], truth)
    assert torch.equal(piap.isnan(), cap.isnan())
    assert not (piap < cap - 1e-12).any()
    best = average_precision_matrix(heat, truth).amax(1).nanmean(-1)  # (B,)
    assert not (piap > best + 1e-12).any()


@promise
@given(groups(further=3))
def test_from_two_maps_on_a_further_one_never_lowers_piap(group):
    heat, truth = group
    scores = [permutation_invariant_ap(heat[:, :k], truth) for k in range(2, heat.shape[1] + 1)]
    assert not any((more < fewer - 1e-12).any() for fewer, more in pairwise(scores))


def test_two_maps_may_have_less_than_one_that_answers_for_all():
    truth = torch.zeros(1, 2, 1, 4)
    truth[0, 0, 0, 0] = truth[0, 1, 0, 1] = 1
    both = truth.sum(1, keepdim=True)
    nothing = -truth[:, :1]
    assert float(permutation_invariant_ap(both, truth)) == 0.5
    assert float(permutation_invariant_ap(torch.cat([both, nothing - truth[:, 1:]], 1), truth)) < 0.5


@promise
@given(scenes())
def test_average_precision_lies_between_its_floor_and_one(scene):
    heat, truth = scene
    ap, total = average_precision(heat, truth), truth.shape[-2] * truth.shape[-1]
    positives = (truth > 0).sum((-2, -1))
    floors = [sum(i / (total - n + i) for i in range(1, n + 1)) / max(n, 1) for n in positives.flatten().tolist()]
    floor = torch.tensor(floors, dtype=torch.float64).view(positives.shape)
    there = positives > 0
    assert torch.equal(ap.isnan(), ~there)
    assert (ap[there] >= floor[there] - 1e-12).all() and (ap[there] <= 1 + 1e-12).all()
    worst = -(truth > 0).float() + torch.rand(truth.shape, generator=drawn(0)) / 2
    same(average_precision(worst, truth)[there], floor[there])


@promise
@given(scenes(axes=(1, 1), ties=False, kinds=("some",)))
def test_avgns_released_number_has_a_high_floor(scene):
    heat, truth = (x.repeat_interleave(2, -1) for x in scene)  # an even number of pixels
    heat = heat + torch.arange(heat.shape[-1]) / 1e3  # no ties
    assert (average_precision_as_released_avgn(heat, truth) >= math.sqrt(2) - 1 - 1e-9).all()


@promise
@given(scenes(ties=False), fractions, st.sampled_from([Area, Above]))
def test_no_map_without_ties_exceeds_the_bound(scene, fraction, rule):
    heat, truth = scene
    for candidate in (heat, heat + 100 * truth, -heat):
        iou = iou_of(candidate, truth, rule(fraction)).nan_to_num(0)
        assert (iou <= bound(truth, rule(fraction)) + 1e-6).all()
        assert (iou >= 0).all()
    reached = iou_of(heat + 100 * truth, truth, rule(fraction)).nan_to_num(0)
    torch.testing.assert_close(reached, bound(truth, rule(fraction)), rtol=0, atol=1e-6)


def duet_truth(seed, n, frames, side, most):
    """Truths of up to `most` pixels, each in one frame."""
    truth, own = torch.zeros(n, side, frames * side), torch.randint(0, frames, (n,), generator=drawn(seed))
    for i, frame in enumerate(own.tolist()):
        count = int(torch.randint(1, most + 1, (), generator=drawn(seed + i)))
        pixels = torch.randperm(side * side, generator=drawn(seed + i))[:count]
        truth[i, pixels // side, frame * side + pixels % side] = 0.5 + 0.5 * (pixels % 2)
    return truth


@promise
@given(seeds, st.integers(2, 3), st.integers(1, 5))
def test_own_frame_allows_more_than_the_whole_picture_up_to_half_of_the_frame(seed, frames, side):
    half = math.ceil(side * side / 2)
    truth = duet_truth(seed, 3, frames, side, half)
    assert (own_frame(truth) >= 0).all()
    whole, own = (PROTOCOLS[f"{canvas}-area50-oracle"].bound(truth) for canvas in ("framewise", "sourcewise"))
    assert (own >= whole - 1e-12).all()


def test_own_frame_allows_less_to_a_source_that_fills_it():
    truth = torch.zeros(1, 4, 8)
    truth[0, :, :4] = 1
    assert float(PROTOCOLS["framewise-area50-oracle"].bound(truth)) == 1
    assert float(PROTOCOLS["sourcewise-area50-oracle"].bound(truth)) == 0.5


@promise
@given(seeds, st.integers(2, 3), st.integers(1, 5), st.sampled_from([None, 3]))
def test_what_is_in_other_frames_does_not_matter_sourcewise(seed, frames, side, levels):
    truth = duet_truth(seed, 3, frames, side, side * side)
    heat = ranks(seed, truth.shape, levels)
    elsewhere = torch.arange(frames * side) // side != own_frame(truth)[:, None, None]  # (n, 1, W)
    other = torch.where(elsewhere, ranks(seed + 1, truth.shape, None) + 100, heat)
    for rule in ("area50", "minmax05", "matched"):
        protocol = PROTOCOLS[f"sourcewise-{rule}-oracle"]
        same(protocol.iou(other, truth), protocol.iou(heat, truth))
        own = own_frame(truth)
        parts = own_part(heat, own), own_part(truth, own)
        same(protocol.iou(heat, truth), iou_of(*parts, protocol.rule).nan_to_num(0))


@promise
@given(st.integers(1, 6), st.integers(1, 3), seeds, st.sampled_from([1.0, 1e-3, 1e4]))
def test_perfect_maps_score_one_for_every_number_of_sources(sources, batch, seed, unit):
    owner = torch.stack([torch.randperm(30, generator=drawn(seed + b)) % (sources + 1) for b in range(batch)])
    truth = (owner.view(batch, 1, 5, 6) == torch.arange(sources)[:, None, None]).float()
    heat = unit * truth - 3
    one = torch.ones(batch, dtype=torch.float64)
    same(iou_of(heat, truth, Matched()), one[:, None].expand(batch, sources))
    same(iou_of(heat, truth, MinMax(0.5)), one[:, None].expand(batch, sources))
    same(average_precision(heat, truth), one[:, None].expand(batch, sources))
    same(class_aware_ap(heat, truth), one)
    order = torch.randperm(sources, generator=drawn(seed))
    same(permutation_invariant_ap(heat[:, order], truth), one)
    flat = (truth.flatten(0, 1), to_logits(heat).flatten(0, 1))
    assert (frame_iou(flat[1], flat[0]) > 1 - 1e-6).all()
    assert f_score(flat[1], flat[0]) == pytest.approx(1)


# intersection over union ---------------------------------------------------------------------------------------------


@promise
@given(scenes(ties=True), st.sampled_from(RULES))
def test_without_votes_it_is_the_plain_ratio_and_with_votes_it_lies_in_the_unit_interval(scene, rule):
    heat, truth = scene
    predicted, real = binarise(heat, rule, truth), truth > 0
    plain = (predicted & real).sum((-2, -1)) / (predicted | real).sum((-2, -1)).double()
    same(consensus_iou(predicted, real.float()), plain)
    weighted = consensus_iou(predicted, truth)
    assert torch.equal(weighted.isnan(), plain.isnan())
    assert ((weighted >= 0) & (weighted <= 1 + 1e-6) | weighted.isnan()).all()


def slow_binarise(heat, rule, truth):
    """The pixels of one map, from the conventions: heat and truth as lists."""
    low, high, n = min(heat), max(heat), len(heat)
    constant = high - low < 1e-6 * max(1, abs(high))
    if isinstance(rule, OfMax):
        return [value > rule.share * high for value in heat]
    if isinstance(rule, Absolute):
        return [value >= rule.threshold for value in heat]
    if constant:
        heat = heat[:1] * n
    if isinstance(rule, MinMax):
        return [(value if constant else (value - low) / (high - low)) >= rule.level for value in heat]
    if isinstance(rule, Matched):
        kept = sorted(range(n), key=lambda i: -heat[i])[: sum(g > 0 for g in truth)]
        return [i in kept for i in range(n)]
    threshold = sorted(heat)[n - max(1, math.ceil(rule.fraction * n))]
    if type(rule) is Area:
        return [value >= threshold for value in heat]
    return [value > threshold or (value == max(heat) and not (constant and value < 0)) for value in heat]


@pytest.mark.parametrize("rule", RULES)
@promise
@given(scenes(), st.sampled_from([0.0, 0.0, 100.0, -100.0]), st.sampled_from([1.0, 1.0, 1e-8]))
def test_every_rule_is_what_its_conventions_say(rule, scene, offset, unit):
    heat, truth = unit * scene[0].double() + offset, scene[1]
    maps = zip(*(x.flatten(0, -3) if x.ndim > 2 else x[None] for x in (heat, truth)), strict=True)
    expected = [slow_binarise(h.flatten().tolist(), rule, g.flatten().tolist()) for h, g in maps]
    assert binarise(heat, rule, truth).flatten().tolist() == [pixel for pixels in expected for pixel in pixels]


@promise
@given(scenes(), st.sampled_from([1.0, 1.0, 1e-8]))
def test_the_short_cut_leads_to_the_same_place(scene, unit):
    heat, truth = unit * scene[0], scene[1]
    for rule in (*RULES, Area(0.25), Area(1.0)):
        for mask in (truth, truth > 0, (truth > 0).double()):
            same(heat_iou(heat, mask, rule), consensus_iou(binarise(heat, rule, mask), mask))


@promise
@given(scenes(axes=(1, 1)))
def test_numpy_and_torch_say_the_same(scene):
    heat, truth = scene
    calls = [lambda rule=rule: iou_of(heat, truth, rule) for rule in RULES]
    calls += [lambda: heat_iou(heat, truth, Area(0.5)), lambda: consensus_iou(heat > 0, truth > 0)]
    calls += [lambda: average_precision_matrix(heat, truth), lambda: frame_f_curves(heat, truth)]
    quick = [call() for call in calls]
    with patch.object(fast, "on_cpu", lambda *maps: False):  # as if they lay on another device
        for found, expected in zip([call() for call in calls], quick, strict=True):
            same(found, expected)


@promise
@given(scenes(axes=(1, 1), kinds=("some",)), st.sampled_from(RULES))
def test_a_right_pixel_never_costs_and_a_wrong_one_never_helps(scene, rule):
    heat, truth = scene
    predicted = binarise(heat, rule, truth)
    before = consensus_iou(predicted, truth).nan_to_num(0)
    for right in (True, False):
        free = (~predicted & ((truth > 0) == right)).flatten(1)
        added = predicted.flatten(1) | (free & (free.cumsum(1) == 1))
        after = consensus_iou(added.view(predicted.shape), truth).nan_to_num(0)
        change = after - before
        assert (change >= -1e-6).all() if right else (change <= 1e-6).all()


@promise
@given(scenes())
def test_released_numbers_are_the_right_ones_of_what_they_misread(scene):
    heat, truth = scene
    half = binarise(heat, Above(0.5))
    same(average_precision_as_released_noprior(heat, truth), average_precision(half.float(), truth))
    same(consensus_iou_as_released_avgn(half, (truth > 0).int()), consensus_iou(half, truth > 0))


# success -------------------------------------------------------------------------------------------------------------

ious = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([math.nan, 0.0, 0.3, 0.5, 1.0])), min_size=1, max_size=30)


@promise
@given(ious, st.floats(0, 1), st.floats(0, 1))
def test_success_falls_with_the_level_and_is_stricter_if_strict(values, a, b):
    iou, low, high = torch.tensor(values, dtype=torch.float64), min(a, b), max(a, b)
    assert success_rate(iou, low) >= success_rate(iou, high)
    assert success_rate(iou, low, strict=True) >= success_rate(iou, high, strict=True)
    exactly = float((iou == low).double().mean())
    assert success_rate(iou, low) == pytest.approx(success_rate(iou, low, strict=True) + exactly)


@promise
@given(ious, st.integers(0, 20))
def test_each_point_bounds_the_area_under_the_curve(values, k):
    iou, level = torch.tensor(values, dtype=torch.float64), 0.05 * k
    rate, found = success_rate(iou, level), success_rate(iou, 0.0)
    assert level * rate - 1e-9 <= success_auc(iou) <= level * found + (1 - level) * rate + 1e-9


@promise
@given(ious)
def test_the_area_under_the_curve_is_the_mean_iou_within_half_a_step(values):
    iou = torch.tensor(values, dtype=torch.float64)
    assert abs(success_auc(iou) - float(iou.nan_to_num(0).mean())) <= 0.025 + 1e-9
    rates = [success_rate(iou, 0.05 * k) for k in range(21)]
    assert success_auc(iou) == pytest.approx(sum(0.05 * (a + b) / 2 for a, b in pairwise(rates)))


# segmentation --------------------------------------------------------------------------------------------------------


@promise
@given(scenes(axes=(1, 1)), st.one_of(st.just(127), st.integers(0, 254)))
def test_no_threshold_beats_the_best_one(scene, k):
    logits, truth = scene[0].float(), scene[1]
    real = truth > 0
    with_truth = real.flatten(1).any(1)
    predicted = torch.sigmoid(logits) >= torch.linspace(0, 1, 255)[k]
    shared = (predicted & real).sum((-2, -1)).double()
    weighted = 0.3 * real.sum((-2, -1)).double() + predicted.sum((-2, -1))
    mean = float((1.3 * shared / weighted)[with_truth].nan_to_num(0).mean().nan_to_num(0))
    assert f_score(logits, truth) >= mean - 1e-9
    assert float(frame_f_curves(logits, truth)[with_truth].mean(0).nan_to_num(0)[k]) == pytest.approx(mean)


@promise
@given(scenes(axes=(1, 1), kinds=("some", "one", "empty")), st.integers(1, 4))
def test_one_call_of_all_frames_is_the_global_score_and_more_calls_score_more(scene, calls):
    logits, truth = scene
    whole = f_score(logits, truth)
    assert f_score(logits, truth, len(logits)) == f_score(logits, truth, len(logits) + 3) == whole
    repeated = torch.cat([logits.roll(i, -1) for i in range(calls)]), truth.repeat(calls, 1, 1)
    assert f_score(*repeated, len(logits)) >= f_score(*repeated) - 1e-12, "calls with as many truths each"


@promise
@given(scenes(axes=(1, 1)))
def test_segmentation_scores_lie_in_the_unit_interval(scene):
    logits, truth = scene
    iou, curves = frame_iou(logits, truth), frame_f_curves(logits, truth)
    assert ((iou >= 0) & (iou <= 1)).all() and ((curves >= 0) & (curves <= 1 + 1e-9)).all()
    assert 0 <= f_score(logits, truth) <= 1 + 1e-9


# empties -------------------------------------------------------------------------------------------------------------


@promise
@given(scenes(axes=(1, 1), kinds=("empty",)), st.sampled_from(RULES))
def test_an_empty_truth_has_the_documented_value(scene, rule):
    heat, empty = scene
    predicted = binarise(heat, rule, empty)
    nothing = ~predicted.flatten(1).any(1)
    iou = consensus_iou(predicted, empty)
    assert torch.equal(iou.isnan(), nothing) and (iou[~nothing] == 0).all()
    assert average_precision(heat, empty).isnan().all()
    assert class_aware_ap(heat[:, None], empty[:, None]).isnan().all()
    assert permutation_invariant_ap(heat[:, None], empty[:, None]).isnan().all()
    assert (bound(empty, rule) == 0).all()
    assert all((protocol.iou(heat, empty) == 0).all() for protocol in PROTOCOLS.values())
    same(frame_iou(heat, empty), (torch.sigmoid(heat) <= 0.5).double().mean((-2, -1)))
    assert f_score(heat, empty) == f_score(heat, empty, 1) == 0


def test_nothing_at_all_has_the_documented_value():
    none = torch.zeros(0, 4, 8)
    assert all(binarise(none, rule, none).shape == none.shape for rule in RULES)
    for measure in (average_precision, frame_iou, own_frame, lambda h, g=none: bound(g, Area(0.5))):
        assert len(measure(none, none) if measure in (average_precision, frame_iou) else measure(none)) == 0
    assert all(len(protocol.iou(none, none)) == 0 for protocol in PROTOCOLS.values())
    assert math.isnan(f_score(none, none)) and math.isnan(success_auc(none)) and math.isnan(success_rate(none, 0.5))
    assert permutation_invariant_ap(torch.rand(2, 2, 4, 4), torch.ones(2, 0, 4, 4)).isnan().all()
    with pytest.raises(ValueError, match="at least one value for an interval, got none"):
        interval([])


# matching and rows ---------------------------------------------------------------------------------------------------

CLASSES = 4
KINDS = ("named", "unsure", "single", "unnamed")


def batch_of(seed, kind, pictures=4, sources=3, side=4, frames=2):
    """Maps of a kind and truths with padding, silent sources, classes that come twice, and an empty mask."""
    source = drawn(seed)
    classes = torch.randint(0, CLASSES, (pictures, sources), generator=source)
    classes[torch.rand(classes.shape, generator=source) < 0.2] = -1
    mask = votes(seed, (pictures, sources, side, frames * side), "some", (0.5, 1.0)) * (classes >= 0)[..., None, None]
    left = torch.rand(classes.shape, generator=source) < 0.5
    mask[..., side:] *= ~left[..., None, None]
    present = (torch.rand(classes.shape, generator=source) < 0.7) & (classes >= 0)
    count = {"single": 1, "unnamed": 3}.get(kind, CLASSES)
    heat = ranks(seed + 1, (pictures, count, side, frames * side), 9)
    names = torch.arange(count) if kind in ("named", "unsure") else torch.full((count,), -1)
    presence = torch.rand((pictures, count), generator=source).mul(4).round() / 4 if kind == "named" else None
    return Maps(heat, names, presence), Truth(mask, classes, present)


def at(maps, truth, pictures):
    presence = None if maps.presence is None else maps.presence[pictures]
    return (
        Maps(maps.heat[pictures], maps.classes, presence),
        Truth(truth.mask[pictures], truth.classes[pictures], truth.present[pictures]),
    )


def close(rows, others):
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, abs=1e-12)


@promise
@given(seeds, st.sampled_from(KINDS))
def test_rows_do_not_depend_on_how_the_batch_is_cut_or_padded(seed, kind):
    maps, truth = batch_of(seed, kind)
    keys = [f"picture {b}" for b in range(len(truth.mask))]
    every = tuple(EVERY.values())
    whole = score(maps, truth, keys, every)
    assert whole[1] and [row["key"] for row in whole[1]] == keys
    alone = [score(*at(maps, truth, [b]), [keys[b]], every) for b in range(len(keys))]
    mask, classes, present = truth.mask, truth.classes, truth.present
    padded = Truth(pad(mask, (0, 0, 0, 0, 0, 2)), pad(classes, (0, 2), value=-1), pad(present, (0, 2)))
    for i in range(2):
        close([row for rows in alone for row in rows[i]], whole[i])
        close(score(maps, padded, keys, every)[i], whole[i])


@promise
@given(seeds)
def test_sources_of_one_class_are_merged_once_and_nothing_is_lost(seed):
    _, truth = batch_of(seed, "named", sources=5)
    merged = merge_same_class(truth)
    again = merge_same_class(merged)
    assert again is merged
    assert not (merged.mask[merged.classes < 0]).any() and not merged.present[merged.classes < 0].any()
    for b, label in product(range(len(truth.mask)), range(CLASSES)):
        mine, one = truth.classes[b] == label, merged.classes[b] == label
        assert int(one.sum()) == bool(mine.any())
        if mine.any():
            assert torch.equal(merged.mask[b, one][0], truth.mask[b, mine].amax(0))
            assert bool(merged.present[b, one]) == bool(truth.present[b, mine].any())


@promise
@given(seeds, st.sampled_from(KINDS), st.sampled_from(["oracle", "predicted"]))
def test_no_map_answers_for_two_sources_but_a_single_one(seed, kind, choice):
    maps, truth = batch_of(seed, kind)
    truth = merge_same_class(truth)
    if not choosable(maps, choice):
        return
    found = match(maps, truth, choice)
    for b, present in enumerate(truth.present):
        answering = found.index[b, present & (found.index[b] >= 0)]
        if kind == "single":
            assert (found.index[b, present] == 0).all()
            continue
        assert len(set(answering.tolist())) == len(answering)
        if kind in ("named", "unsure"):
            places = (present & (found.index[b] >= 0)).nonzero()[:, 0]
            heat = found.answers(torch.full_like(places, b), places)
            assert torch.equal(heat, maps.heat[b, truth.classes[b, places]].to(heat.dtype))


# bad input -----------------------------------------------------------------------------------------------------------

HEAT, TRUTH = torch.arange(32.0).view(1, 4, 8), torch.eye(4, 8)[None]
MAPS, SOURCES = Maps(HEAT[None], torch.tensor([3])), Truth(TRUTH[None], torch.tensor([[3]]), torch.tensor([[True]]))
MEASURES = {
    "iou": lambda h, g: iou_of(h, g, Matched()),
    "ap": average_precision,
    "avgn": average_precision_as_released_avgn,
    "frame_iou": frame_iou,
    "f": f_score,
    "sourcewise": PROTOCOLS["sourcewise-area50-oracle"].iou,
    "framewise": PROTOCOLS["framewise-area50-oracle"].iou,
}


def spoilt(value):
    heat = HEAT.clone()
    heat[0, 1, 2] = value
    return heat


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(("value", "said"), [(math.nan, "1 NaN and 0 inf"), (-math.inf, "0 NaN and 1 inf")])
def test_values_that_cannot_be_ranked_are_refused(name, value, said):
    with pytest.raises(ValueError, match=f"expected finite heat, got {said}inite of "):
        MEASURES[name](spoilt(value), TRUTH)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(("value", "ends"), [(2.0, "0, 2"), (-1.0, "-1, 1"), (math.nan, "nan, nan")])
def test_truths_outside_of_the_unit_interval_are_refused(name, value, ends):
    truth = TRUTH.clone()
    truth[0, 1, 2] = value
    with pytest.raises(ValueError, match=rf"expected truth in \[0, 1\], got \[{ends}\]"):
        MEASURES[name](HEAT, truth)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("heat", [HEAT[:, :2], HEAT[..., :4], HEAT.repeat(2, 1, 1), HEAT[0]])
def test_other_sizes_are_refused_by_name(name, heat):
    with pytest.raises(ValueError, match=r"expected .*, got .*\("):
        MEASURES[name](heat, TRUTH)


@pytest.mark.parametrize("name", MEASURES)
def test_whole_numbers_and_switches_are_heat_and_truth_too(name):
    for heat in (HEAT.long(), HEAT.byte(), HEAT > 9):
        torch.testing.assert_close(MEASURES[name](heat, TRUTH.bool()), MEASURES[name](heat.float(), TRUTH))


REFUSED = {
    "no pixel": (lambda: frame_count(0, 8), "at least one pixel, got 0 x 8"),
    "no width": (lambda: own_frame(TRUTH[..., :0]), "at least one pixel, got 4 x 0"),
    "one picture": (lambda: own_frame(TRUTH[0]), r"shape \(n, H, W\), got \(4, 8\)"),
    "no frame": (lambda: own_part(HEAT, torch.tensor([-1])), r"0 \.\.\. 1 for each picture of \(1, 4, 8\), got \[-1\]"),
    "two frames": (lambda: own_part(HEAT, torch.tensor([0, 1])), r"each picture of \(1, 4, 8\), got \[0, 1\]"),
    "half a map": (
        lambda: on_canvas(average_precision, HEAT[..., :4], TRUTH, "sourcewise"),
        r"one size, got \(1, 4, 4\) and \(1, 4, 8\)",
    ),
    "canvas": (lambda: on_canvas(average_precision, HEAT, TRUTH, "own"), "among framewise, sourcewise, got 'own'"),
    "choice": (lambda: match(MAPS, SOURCES, "best"), "among oracle, predicted, got 'best'"),
    "no map": (
        lambda: match(Maps(HEAT[None, :0], torch.zeros(0, dtype=torch.int64)), SOURCES),
        r"at least one map of each picture, got heat \(1, 0, 4, 8\)",
    ),
    "a class twice": (
        lambda: match(Maps(HEAT.expand(1, 2, 4, 8), torch.tensor([3, 3])), SOURCES),
        r"one map of each class, got several for classes \[3\]",
    ),
    "presence": (
        lambda: match(Maps(MAPS.heat, MAPS.classes, torch.tensor([[math.nan]])), SOURCES, "predicted"),
        "finite presence, got 1 of 1 values that are not",
    ),
    "no source": (
        lambda: merge_same_class(Truth(TRUTH[None, :0], SOURCES.classes[:, :0], SOURCES.present[:, :0])),
        r"room for at least one source, got masks \(1, 0, 4, 8\)",
    ),
    "present of another shape": (
        lambda: match(MAPS, Truth(TRUTH[None], SOURCES.classes, torch.ones(1, 2, dtype=torch.bool))),
        r"classes and present \(1, 1\) as the masks, got \(1, 1\) and \(1, 2\)",
    ),
    "present in numbers": (
        lambda: merge_same_class(Truth(TRUTH[None], SOURCES.classes, SOURCES.present.int())),
        "torch.bool, got torch.int64 and torch.int32",
    ),
    "classes with fractions": (
        lambda: match(MAPS, Truth(TRUTH[None], SOURCES.classes.float(), SOURCES.present)),
        "whole classes and present of torch.bool, got torch.float32 and torch.bool",
    ),
    "a lost seed": (lambda: interval([0.3, math.nan, 0.4]), "finite values for an interval, got 1 of 3 that are not"),
    "confidence": (lambda: interval([0.3, 0.4], 95), r"confidence in \(0, 1\), got 95"),
    "switch for a map": (lambda: consensus_iou(HEAT, TRUTH), "binary prediction .*, got torch.float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_words(name):
    call, said = REFUSED[name]
    with pytest.raises(ValueError, match=f"expected .*{said}"):
        call()
