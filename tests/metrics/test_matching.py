import pytest
import torch

from m2vsl.metrics.matching import choosable, heard, is_named, match, match_ap, merge_same_class, permutation_invariant
from m2vsl.metrics.ranking import class_aware_ap, permutation_invariant_ap
from m2vsl.types import Maps, Truth

LEFT, RIGHT = torch.zeros(4, 8), torch.zeros(4, 8)
LEFT[1:3, 1:3], RIGHT[:, 5:7] = 1, 1


def truth(classes, present=(True, True), masks=(LEFT, RIGHT)):
    """One picture of two sources."""
    return Truth(torch.stack(masks)[None], torch.tensor([classes]), torch.tensor([present]))


def class_maps(presence=None, classes=5):
    """Maps told apart by their value: map k is k everywhere but where LEFT (class 2) and RIGHT (class 4) are."""
    heat = torch.arange(classes).float().view(1, classes, 1, 1).expand(1, classes, 4, 8).clone()
    heat[0, 2] += LEFT
    heat[0, 4] += RIGHT
    return Maps(heat, torch.arange(classes), None if presence is None else torch.tensor([presence]))


def unnamed(*maps):
    return Maps(torch.stack(maps)[None], torch.full((len(maps),), -1))


def test_oracle_gives_each_source_the_map_of_its_class():
    maps, where = class_maps(), truth([4, 2])
    found = match(maps, where)
    assert found.index.tolist() == [[0, 1]]
    answers = found.answers(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert torch.equal(answers, maps.heat[0, [4, 2]])
    torch.testing.assert_close(
        match_ap(found, where).diagonal(dim1=1, dim2=2).mean(-1), class_aware_ap(found.heat, where.mask)
    )


def test_classes_need_not_be_in_order():
    maps = class_maps()
    shuffled = Maps(maps.heat[:, [3, 4, 0, 2, 1]], torch.tensor([3, 4, 0, 2, 1]), torch.tensor([[0.1, 0.9, 0, 0.8, 0]]))
    for choice in ("oracle", "predicted"):
        found = match(shuffled, truth([2, 4]), choice)
        assert torch.equal(found.answers(torch.tensor([0, 0]), torch.tensor([0, 1])), maps.heat[0, [2, 4]])


def test_a_class_without_a_map_is_named():
    with pytest.raises(ValueError, match=r"got none for classes \[7\]"):
        match(class_maps(), truth([2, 7]))
    assert match(class_maps(), truth([2, -1], present=(True, False), masks=(LEFT, 0 * LEFT))).index.tolist() == [
        [0, -1]
    ]


def test_predicted_classes_answer_or_nobody_does():
    both = match(class_maps([0, 0, 0.3, 0, 0.9]), truth([2, 4]), "predicted")
    assert both.index.tolist() == [[1, 0]], "in order of presence"
    half = match(class_maps([0.8, 0, 0.3, 0, 0.9]), truth([2, 4]), "predicted")
    assert half.index.tolist() == [[-1, 0]]
    assert half.used.tolist() == [[True, True]], "the map of the wrong class is an answer too"
    neither = match(class_maps([0.8, 0.7, 0.3, 0.9, 0.1]), truth([2, 4]), "predicted")
    assert neither.index.tolist() == [[-1, -1]]


def test_as_many_classes_as_sources_sound():
    presence = [0, 0, 0.8, 0, 0.9]
    alone = truth([2, 4], present=(True, False))
    assert match(class_maps(presence), alone, "predicted").index.tolist() == [[-1, -1]], "one class: the other one"
    assert match(class_maps(presence), alone, "predicted").used.tolist() == [[True, False]]
    assert heard(class_maps(presence), alone).tolist() == [False]
    assert heard(class_maps(presence), truth([2, 4])).tolist() == [True]
    assert heard(class_maps(presence), truth([4, 2], present=(True, False))).tolist() == [True]


def test_equal_presence_takes_the_lower_index():
    assert match(class_maps([0.5] * 5), truth([0, 1]), "predicted").index.tolist() == [[0, 1]]


def test_a_single_map_answers_for_all_under_both_choices():
    maps = unnamed(LEFT)
    for choice in ("oracle", "predicted"):
        assert match(maps, truth([2, 4]), choice).index.tolist() == [[0, 0]]
    assert heard(maps, truth([2, 4])) is None


def test_maps_without_names_are_assigned_by_average_precision():
    maps = unnamed(0 * LEFT, RIGHT, LEFT)
    found = match(maps, truth([2, 4]))
    assert found.index.tolist() == [[2, 1]]
    assert float(permutation_invariant(found, truth([2, 4]))) == 1
    assert not choosable(maps, "predicted")
    with pytest.raises(ValueError, match="'predicted' needs class maps"):
        match(maps, truth([2, 4]), "predicted")


def test_too_few_maps_leave_a_source_without():
    third = torch.zeros(4, 8)
    third[0, 0] = 1
    where = Truth(
        torch.stack([LEFT, third, RIGHT])[None], torch.tensor([[0, 1, 2]]), torch.ones(1, 3, dtype=torch.bool)
    )
    found = match(unnamed(RIGHT, LEFT), where)
    assert found.index.tolist() == [[1, -1, 0]]
    assert float(permutation_invariant(found, where)) == pytest.approx(2 / 3)


def test_a_silent_source_borrows_the_map_of_the_sounding_one():
    maps = class_maps([0, 0, 0.9, 0, 0.1])
    alone = truth([2, 4], present=(True, False))
    for choice in ("oracle", "predicted"):
        found = match(maps, alone, choice)
        assert found.index.tolist() == [[0, 0]]
        assert torch.equal(found.answers(torch.tensor([0]), torch.tensor([1]))[0], maps.heat[0, 2])
    assert match(unnamed(LEFT), alone).index.tolist() == [[0, 0]]
    assert match(unnamed(RIGHT, LEFT), alone).index.tolist() == [[1, 1]], "assigned by the sounding source alone"


def test_padding_and_silence_among_several_get_no_map():
    masks = torch.stack([LEFT, RIGHT, LEFT.flip(1), 0 * LEFT])[None]
    where = Truth(masks, torch.tensor([[0, 1, 2, -1]]), torch.tensor([[True, True, False, False]]))
    assert match(class_maps(), where).index.tolist() == [[0, 1, -1, -1]]
    assert match(unnamed(LEFT), where).index.tolist() == [[0, 0, -1, -1]]


def test_piap_permutes_the_maps_in_use():
    where = truth([2, 4])
    crossed = class_maps()
    crossed.heat[0, [2, 4]] = torch.stack([RIGHT, LEFT])
    found = match(crossed, where)
    assert float(class_aware_ap(found.heat, where.mask)) < 0.3
    assert float(permutation_invariant(found, where)) == 1
    alone = truth([2, 4], present=(True, False))
    found = match(crossed, alone)
    expected = permutation_invariant_ap(RIGHT[None, None], LEFT[None, None])
    assert float(permutation_invariant(found, alone)) == float(expected), "the silent class's map may not help"


def test_piap_of_predicted_classes_ignores_their_names():
    maps = class_maps([0, 0.9, 0, 0.8, 0])
    maps.heat[0, [1, 3]] = torch.stack([RIGHT, LEFT])
    found = match(maps, truth([2, 4]), "predicted")
    assert found.index.tolist() == [[-1, -1]]
    assert float(permutation_invariant(found, truth([2, 4]))) == 1


def test_sources_of_one_class_are_merged():
    masks = torch.stack([LEFT, RIGHT, LEFT.flip(1) * 0.5])[None].repeat(2, 1, 1, 1)
    classes = torch.tensor([[3, 3, 1], [-1, 3, -1]])
    merged = merge_same_class(Truth(masks, classes, torch.tensor([[False, True, True], [True, True, True]])))
    assert merged.classes.tolist() == [[3, -1, 1], [-1, 3, -1]]
    assert merged.present.tolist() == [[True, False, True], [True, True, True]]
    assert torch.equal(merged.mask[0, 0], torch.maximum(LEFT, RIGHT))
    assert not merged.mask[0, 1].any()
    assert torch.equal(merged.mask[1], masks[1]), "unknown classes stay apart"
    assert masks[0, 1].any(), "the truth itself is not touched"


def test_nothing_to_merge_is_the_same_object():
    where = truth([2, 4])
    assert merge_same_class(where) is where


def test_names_for_some_maps_are_refused():
    assert is_named(class_maps())
    assert not is_named(unnamed(LEFT))
    with pytest.raises(ValueError, match=r"for all maps or for none"):
        is_named(Maps(torch.zeros(1, 2, 4, 8), torch.tensor([0, -1])))


def test_bad_shapes_and_values_are_named():
    with pytest.raises(ValueError, match=r"got \(1, 1, 4, 4\) and \(1, 2, 4, 8\)"):
        match(unnamed(LEFT[:, :4]), truth([2, 4]))
    with pytest.raises(ValueError, match=r"expected classes \(5,\) and presence \(1, 5\), got \(5,\) and \(1, 2\)"):
        match(class_maps([0.1, 0.2]), truth([2, 4]))
    with pytest.raises(ValueError, match="32 NaN"):
        match(unnamed(LEFT * float("nan")), truth([2, 4]))
