import numpy as np
import pytest
import torch

from m2vsl import ops
from m2vsl.metrics.heat import is_constant, normalise, settled, validated, validated_truth
from m2vsl.metrics.overlap import Absolute, Area, MinMax, OfMax, binarise, bound, consensus_iou, success_rate
from m2vsl.metrics.ranking import permutation_invariant_ap
from m2vsl.metrics.segmentation import f_score, to_logits


def test_normalise_spreads_each_map_over_the_unit_interval():
    heat = torch.tensor([[[-3.0, 1.0], [0.0, 5.0]], [[2.0, 2.0], [4.0, 3.0]]])
    expected = torch.tensor([[[0, 0.5], [0.375, 1]], [[0, 0], [1, 0.5]]])
    torch.testing.assert_close(normalise(heat), expected)
    torch.testing.assert_close(normalise(heat), ops.min_max(heat))


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0, 1e6])
def test_a_constant_keeps_its_value(value):
    heat = torch.full((1, 4, 4), value)
    assert torch.equal(normalise(heat), heat)


@pytest.mark.parametrize(
    ("offset", "ripple", "constant"),
    [(0.0, 9e-7, True), (0.0, 2e-6, False), (-0.5, 9e-7, True), (100.0, 5e-5, True), (100.0, 5e-4, False)],
)
def test_ripples_below_a_millionth_are_a_constant(offset, ripple, constant):
    heat = torch.full((1, 4, 4), offset, dtype=torch.float64)
    heat[0, 2, 1] += ripple
    assert bool(is_constant(heat)[0]) is constant
    assert (settled(heat).unique().numel() == 1) is constant


def test_bicubic_ripples_are_settled():
    coarse = torch.full((1, 1, 7, 7), 0.37)
    heat = ops.upsample(coarse, (224, 224), mode="bicubic", align_corners=False)[:, 0]
    assert heat.unique().numel() > 1, "the case is about ripples"
    assert settled(heat).unique().numel() == 1


def test_values_that_cannot_be_ranked_are_counted_and_refused():
    heat = torch.zeros(2, 3, 3)
    heat[0, 0, 0], heat[1, 1, 1], heat[1, 2, 2] = float("nan"), float("inf"), -float("inf")
    with pytest.raises(ValueError, match=r"finite heat, got 1 NaN and 2 infinite of 18 values"):
        validated(heat)


def test_half_precision_is_measured_in_single():
    assert validated(torch.zeros(2, 2, dtype=torch.float16)).dtype == torch.float32
    assert validated(torch.zeros(2, 2, dtype=torch.float64)).dtype == torch.float64


def test_a_vector_is_no_map():
    with pytest.raises(
        ValueError, match=r"expected heat of shape \(\.\.\., H, W\), real, with at least one pixel, got \(4,\)"
    ):
        validated(torch.zeros(4))


def test_added_up_boxes_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"truth in \[0, 1\], got \[0, 2\]"):
        validated_truth(torch.tensor([[0.0, 2.0]]), torch.Size((1, 2)))
    with pytest.raises(ValueError, match=r"shape \(1, 3\), got \(1, 2\)"):
        validated_truth(torch.zeros(1, 2), torch.Size((1, 3)))


@pytest.mark.parametrize("call", [validated, normalise, lambda heat: binarise(heat, Area()), to_logits])
@pytest.mark.parametrize(
    ("heat", "error", "told"),
    [
        (torch.zeros(0, 4), ValueError, r"with at least one pixel, got \(0, 4\)"),
        (torch.zeros(2, 4, 0), ValueError, r"with at least one pixel, got \(2, 4, 0\)"),
        (torch.zeros(4), ValueError, r"\(\.\.\., H, W\), real, with at least one pixel, got \(4,\)"),
        (torch.zeros(2, 2, dtype=torch.complex64), ValueError, r"real, .*complex64"),
        (np.zeros((2, 2)), TypeError, "expected heat as a tensor .* got ndarray"),
        ([[0.0, 1.0]], TypeError, "got list"),
    ],
)
def test_what_is_no_map_is_refused_in_words(call, heat, error, told):
    with pytest.raises(error, match=told):
        call(heat)


def test_large_whole_numbers_do_not_tie():
    heat = torch.tensor([[2**24, 2**24 + 1, 0, 1]])
    assert validated(heat).dtype == torch.float64
    assert binarise(heat, Area(0.25)).tolist() == [[False, True, False, False]]


def test_a_range_beyond_the_type_is_spread_all_the_same():
    heat = torch.tensor([[3e38, -3e38], [0.0, 1.0]])
    assert normalise(heat).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert binarise(heat, MinMax(0.5)).sum() == 3


def test_truths_of_half_precision_and_with_a_gradient():
    full = torch.ones(300, 300, dtype=torch.float16)
    assert float(consensus_iou(torch.ones(300, 300).bool(), full)) == 1
    learnt = torch.ones(2, 2, requires_grad=True)
    assert not validated_truth(learnt, learnt.shape).requires_grad
    assert not bound(learnt, Area(0.5)).requires_grad
    for nothing in (torch.tensor(1.0), torch.ones(3)):
        with pytest.raises(ValueError, match="expected truth of shape"):
            bound(nothing, Area(0.5))


@pytest.mark.parametrize(
    "made",
    [
        lambda: MinMax(7.0),
        lambda: OfMax(-1.0),
        lambda: OfMax(1.0),
        lambda: Absolute(float("nan")),
        lambda: success_rate(torch.ones(2), float("nan")),
        lambda: f_score(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), 0),
        lambda: permutation_invariant_ap(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)),
        lambda: permutation_invariant_ap(torch.zeros(1, 0, 4, 4), torch.zeros(1, 2, 4, 4)),
    ],
)
def test_levels_and_shapes_that_mean_nothing_are_refused(made):
    with pytest.raises(ValueError, match="expected"):
        made()
