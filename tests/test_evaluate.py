from dataclasses import replace

import pytest
import torch

from m2vsl.evaluate import bound, evaluate, oracle_maps, score
from m2vsl.localizer import Localizer
from m2vsl.metrics.canvas import own_frame, own_part
from m2vsl.metrics.overlap import binarise, consensus_iou, success_auc, success_rate
from m2vsl.metrics.protocols import HEADLINE, PROTOCOLS
from m2vsl.metrics.ranking import average_precision, permutation_invariant_ap
from m2vsl.metrics.tally import column
from m2vsl.types import Batch, Maps, Truth

SIDE, CLASSES = 8, 5


class Fixed(Localizer):
    """Answers with what `answer` makes of a batch."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.modes = answer, []

    def forward(self, batch):
        return {}

    def localize(self, batch):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.answer(batch)


def duets(count=4, seed=0, one=False, frames=2):
    """Pictures of two frames with an object in each; with `one`, each picture twice, once per sounding source."""
    source = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, 2, SIDE, frames * SIDE)
    for picture in range(count):
        for side in range(2):
            y, x = torch.randint(0, SIDE - 4, (2,), generator=source).tolist()
            mask[picture, side, y : y + 4, x + side * SIDE * (frames - 1) : x + side * SIDE * (frames - 1) + 3] = 1
    classes = torch.stack([torch.randperm(CLASSES, generator=source)[:2] for _ in range(count)])
    present = torch.ones(count, 2, dtype=torch.bool)
    if one:
        mask, classes = mask.repeat_interleave(2, 0), classes.repeat_interleave(2, 0)
        present = torch.eye(2, dtype=torch.bool).repeat(count, 1)
    return batch(Truth(mask, classes, present))


def batch(truth):
    count, _, height, width = truth.mask.shape
    heard = torch.zeros(count, CLASSES)
    for picture, source in truth.present.nonzero().tolist():
        heard[picture, truth.classes[picture, source]] = 1
    keys = tuple(f"picture {i}" for i in range(count))
    image, sound = torch.zeros(count, 3, height, width), torch.zeros(count, 1, 4, 4)
    return Batch(image, sound, heard, heard, heard, torch.arange(count), truth, keys)


def part(whole, where):
    """Some pictures of a batch."""
    truth = Truth(whole.truth.mask[where], whole.truth.classes[where], whole.truth.present[where])
    return replace(batch(truth), keys=whole.keys[where])


def noise(shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def class_maps(given, presence=True, blur=0.5, seed=1):
    """A map per class: its source's mask (whether it sounds or not), blurred by noise; presence is the truth."""
    masks, classes = given.truth.mask, given.truth.classes
    heat = torch.zeros(len(given), CLASSES, *masks.shape[2:])
    for picture in range(len(given)):
        for source in (classes[picture] >= 0).nonzero().flatten().tolist():
            heat[picture, classes[picture, source]] += masks[picture, source]
    heat = heat + blur * noise(heat.shape, seed)
    return Maps(heat, torch.arange(CLASSES), given.heard.clone() if presence else None)


def single_map(given, seed=2):
    return Maps(noise((len(given), 1, *given.truth.mask.shape[2:]), seed), torch.tensor([-1]))


# what is measured ----------------------------------------------------------------------------------------------------


def test_perfect_maps_are_perfect():
    given = duets()
    found = evaluate(Fixed(lambda b: class_maps(b, blur=1e-3)), [given])
    for choice in ("oracle", "predicted"):
        for name in ("ap", "cap", "cap_macro", "piap", "half", "pointing"):
            assert found.scalars[f"{choice}/{name}"] == 1
    for protocol in PROTOCOLS.values():
        if "area50" not in protocol.name:
            assert found.scalars[f"{protocol.name}/iou"] == found.scalars[f"{protocol.name}/auc"] == 1
    assert found.scalars["heard_accuracy"] == 1
    assert dict(found.counts) == {"pictures": 4, "sources": 8, "silent": 0, "empty_truths": 0}
    assert not any(name.startswith("swapped") for name in found.scalars)


def test_every_number_is_what_the_metrics_say_source_by_source():
    given = duets(5)
    maps = class_maps(given, blur=2.0)
    found = evaluate(Fixed(lambda _: maps), [given])
    truth = given.truth
    for protocol in PROTOCOLS.values():
        ious, aps = [], []
        for b in range(5):
            for s in range(2):
                heat, mask = maps.heat[b, truth.classes[b, s]][None], truth.mask[b, s][None]
                aps.append(average_precision(heat, mask))
                if protocol.canvas == "sourcewise":
                    heat, mask = own_part(heat, own_frame(truth.mask[b, s][None])), own_part(mask, own_frame(mask))
                ious.append(consensus_iou(binarise(heat, protocol.rule, mask), mask))
        iou = torch.cat(ious)
        assert found.scalars[f"{protocol.name}/auc"] == pytest.approx(success_auc(iou))
        assert found.scalars[f"{protocol.name}/iou"] == pytest.approx(float(iou.mean()))
        for at in (0.1, 0.3, 0.5):
            assert found.scalars[f"{protocol.name}/ciou@{at}"] == success_rate(iou, at)
    assert found.scalars["oracle/ap"] == pytest.approx(float(torch.cat(aps).mean()))
    assert found.scalars["oracle/cap"] == pytest.approx(found.scalars["oracle/ap"]), "two sources in every picture"
    answering = maps.heat[torch.arange(5)[:, None], truth.classes]
    assert found.scalars["oracle/piap"] == pytest.approx(float(permutation_invariant_ap(answering, truth.mask).mean()))
    assert found.scalars["oracle/piap"] >= found.scalars["oracle/cap"]


def test_batches_do_not_matter():
    given = duets(5)
    maps = class_maps(given, blur=1.0)

    def answer(b):
        rows = [given.keys.index(key) for key in b.keys]
        return Maps(maps.heat[rows], maps.classes, maps.presence[rows])

    whole = evaluate(Fixed(answer), [given])
    split = evaluate(Fixed(answer), [part(given, slice(0, 2)), part(given, slice(2, 5))])
    assert split.scalars == pytest.approx(dict(whole.scalars))
    assert [row["key"] for row in split.sources] == [row["key"] for row in whole.sources]


def test_only_the_protocols_asked_for():
    found = evaluate(Fixed(single_map), [duets()], protocols=[HEADLINE])
    assert f"{HEADLINE.name}/auc" in found.scalars
    assert not any("sourcewise" in name for name in found.scalars)


# class choice --------------------------------------------------------------------------------------------------------


def test_a_class_that_was_not_heard_scores_nothing():
    given = duets(1)
    maps = class_maps(given, blur=0.1)
    first, second = given.truth.classes[0].tolist()
    other = next(c for c in range(CLASSES) if c not in (first, second))
    maps.presence[0, second], maps.presence[0, other] = 0.0, 1.0
    found = evaluate(Fixed(lambda _: maps), [given])
    assert found.scalars["heard_accuracy"] == 0
    assert found.scalars["predicted/ap"] == pytest.approx(found.scalars["oracle/ap"] / 2)
    assert found.scalars["predicted/cap"] == pytest.approx(found.scalars["oracle/cap"] / 2)
    for name in ("framewise-matched", "sourcewise-area50"):
        assert column(found.sources, f"{name}-predicted").tolist()[1] == 0
        assert column(found.sources, f"{name}-oracle").tolist()[1] > 0
        assert found.sources[0][f"{name}-predicted"] == found.sources[0][f"{name}-oracle"]
    answers = maps.heat[:, sorted((first, other))]
    piap = float(permutation_invariant_ap(answers, given.truth.mask))
    assert found.scalars["predicted/piap"] == pytest.approx(piap), "PIAP does not ask for names"


def test_a_single_map_needs_no_choice():
    found = evaluate(Fixed(single_map), [duets()])
    for name, value in found.scalars.items():
        if "oracle" in name:
            assert found.scalars[name.replace("oracle", "predicted")] == value
    assert "heard_accuracy" not in found.scalars


def test_what_a_method_does_not_say_is_absent():
    found = evaluate(Fixed(lambda b: class_maps(b, presence=False)), [duets()])
    assert "oracle/cap" in found.scalars
    assert not any("predicted" in name or name == "heard_accuracy" for name in found.scalars)


def test_a_source_left_without_a_map_scores_nothing():
    mask = torch.zeros(1, 3, SIDE, SIDE)
    for s in range(3):
        mask[0, s, 2 * s : 2 * s + 2] = 1
    given = batch(Truth(mask, torch.tensor([[0, 1, 2]]), torch.ones(1, 3, dtype=torch.bool)))
    found = evaluate(Fixed(lambda _: Maps(mask[:, :2] + noise((SIDE, SIDE)) / 9, torch.tensor([-1, -1]))), [given])
    assert [row["framewise-matched-oracle"] for row in found.sources] == [1, 1, 0]
    assert found.scalars["oracle/piap"] == pytest.approx(2 / 3)
    assert "oracle/cap" not in found.scalars, "maps without classes have no CAP"


# one of the sources sounds -------------------------------------------------------------------------------------------


def test_who_listens_finds_the_sounding_half_and_loses_it_when_swapped():
    given = duets(one=True)
    found = evaluate(Fixed(lambda b: class_maps(b, blur=1e-3)), [given])
    assert dict(found.counts) == {"pictures": 8, "sources": 8, "silent": 8, "empty_truths": 0}
    assert found.scalars["oracle/half"] == found.scalars["oracle/pointing"] == found.scalars["heard_accuracy"] == 1
    assert found.scalars["swapped/oracle/half"] == found.scalars["swapped/oracle/pointing"] == 0
    assert found.scalars["framewise-matched-oracle/iou"] == 1
    assert found.scalars["swapped/framewise-matched-oracle/iou"] == 0


def test_who_does_not_listen_scores_the_same_when_swapped():
    given = duets(6, one=True)
    deaf = single_map(part(given, slice(0, None, 2)))
    deaf = Maps(deaf.heat.repeat_interleave(2, 0), deaf.classes)
    found = evaluate(Fixed(lambda _: deaf), [given])
    assert found.scalars["oracle/half"] == 0.5
    for name, value in found.scalars.items():
        if name.startswith("swapped/"):
            assert value == pytest.approx(found.scalars[name.removeprefix("swapped/")])


def test_the_swapped_score_is_of_the_same_map():
    given = duets(2, one=True)
    maps = class_maps(given, blur=3.0)
    found = evaluate(Fixed(lambda _: maps), [given])
    rows = [row for row in found.sources if not row["sounds"]]
    for row, b in zip(rows, range(4), strict=True):
        sounding, silent = b % 2, 1 - b % 2
        heat, mask = maps.heat[b, given.truth.classes[b, sounding]][None], given.truth.mask[b, silent][None]
        assert (row["key"], row["source"]) == (given.keys[b], silent)
        assert row["oracle/ap"] == pytest.approx(float(average_precision(heat, mask)))
        assert row["framewise-matched-oracle"] == pytest.approx(
            float(PROTOCOLS["framewise-matched-oracle"].iou(heat, mask))
        )
    assert found.scalars["oracle/cap"] == found.scalars["oracle/ap"], "silent sources stay out of CAP"


def test_one_frame_has_no_halves_but_can_be_pointed_at():
    given = duets(one=True, frames=1)
    found = evaluate(Fixed(lambda b: class_maps(b, blur=1e-3)), [given])
    assert "oracle/half" not in found.scalars
    assert found.scalars["oracle/pointing"] == 1
    assert found.scalars["framewise-area50-oracle/iou"] == found.scalars["sourcewise-area50-oracle/iou"]


# empties, merging ----------------------------------------------------------------------------------------------------


def test_an_empty_truth_is_a_failure_and_is_counted():
    given = duets(2)
    given.truth.mask[1] = 0
    found = evaluate(Fixed(lambda b: class_maps(b, blur=1e-3)), [given])
    assert found.counts["empty_truths"] == 2
    assert found.scalars["framewise-matched-oracle/iou"] == found.scalars["framewise-matched-oracle/ciou@0.5"] == 0.5
    assert found.scalars["oracle/ap"] == found.scalars["oracle/cap"] == found.scalars["oracle/piap"] == 1
    assert found.sources[2]["oracle/ap"] is None
    assert found.pictures[1]["oracle/cap"] is None


def test_two_sources_of_one_class_are_one():
    given = duets(1)
    given.truth.classes[:] = 3
    found = evaluate(Fixed(lambda b: class_maps(b, blur=1e-3)), [given])
    assert found.counts["sources"] == 1
    assert found.scalars["framewise-matched-oracle/iou"] == found.scalars["sourcewise-matched-oracle/iou"] == 1
    assert "oracle/half" not in found.scalars, "it lies in both"


# bounds --------------------------------------------------------------------------------------------------------------


def test_nobody_exceeds_the_bound():
    given = duets(6)
    ceiling = bound([given])
    for blur in (1e-3, 0.5, 5.0):
        found = evaluate(Fixed(lambda b, blur=blur: class_maps(b, blur=blur)), [given])
        for name, value in ceiling.scalars.items():
            assert found.scalars[name] <= value + 1e-12
        for row, best in zip(found.sources, ceiling.sources, strict=True):
            assert (row["key"], row["source"]) == (best["key"], best["source"])
            assert all(row[name] <= best[name] + 1e-12 for name in PROTOCOLS)
    assert ceiling.scalars["framewise-area50-oracle/iou"] == pytest.approx(12 / 64)
    assert ceiling.scalars["sourcewise-area50-oracle/iou"] == pytest.approx(12 / 32)


def test_the_bound_of_an_empty_truth_is_zero():
    given = duets(2)
    given.truth.mask[1] = 0
    ceiling = bound([given])
    assert ceiling.scalars["framewise-matched-oracle/iou"] == 0.5
    assert ceiling.scalars["oracle/cap"] == 1
    assert ceiling.counts["empty_truths"] == 2


# the loop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_method_is_asked_in_evaluation_mode_without_gradient(training):
    method = Fixed(single_map).train(training)
    evaluate(method, [duets(), duets()])
    assert method.modes == [(False, False)] * 2
    assert method.training is training


def test_the_mode_is_put_back_after_a_failure():
    method = Fixed(lambda b: Maps(torch.full((len(b), 1, SIDE, 2 * SIDE), float("nan")), torch.tensor([-1])))
    with pytest.raises(ValueError, match="512 NaN and 0 infinite of 512"):
        evaluate(method, [duets()])
    assert method.training


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"got \(4, 1, 7, 7\) and \(4, 2, 8, 16\)"):
        evaluate(Fixed(lambda b: Maps(torch.zeros(4, 1, 7, 7), torch.tensor([-1]))), [duets()])


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        evaluate(Fixed(single_map), [])


def test_pictures_without_keys_are_numbered():
    given = replace(duets(2), keys=())
    found = evaluate(Fixed(single_map), [given, given])
    assert [row["key"] for row in found.pictures] == ["0", "1", "2", "3"]


def test_score_gives_the_rows_themselves():
    given = duets(2)
    sources, pictures = score(class_maps(given), given.truth, given.keys, [HEADLINE])
    assert [(row["key"], row["source"]) for row in sources] == [(k, s) for k in given.keys for s in range(2)]
    assert {"class", "sounds", "area", HEADLINE.name, "oracle/ap", "predicted/half"} <= set(sources[0])
    assert set(pictures[0]) == {"key", "oracle/cap", "oracle/piap", "predicted/cap", "predicted/piap", "heard"}


def test_more_sources_than_a_method_tells_apart_are_refused_by_name():
    given = duets()
    localizer = Fixed(lambda b: Maps(noise((len(b), 1, SIDE, 2 * SIDE)), torch.tensor([-1])))
    localizer.sources = 2
    evaluate(localizer, [given])
    localizer.sources = 1
    with pytest.raises(ValueError, match="Fixed tells 1 sources of a picture apart, got one with 2"):
        evaluate(localizer, [given])


def test_the_oracles_maps_are_those_of_the_true_classes():
    given = duets(one=True)
    heat = noise((len(given), CLASSES, SIDE, 2 * SIDE))
    found = oracle_maps(Fixed(lambda _: Maps(heat, torch.arange(CLASSES))), given)
    for b, (classes, present) in enumerate(zip(given.truth.classes, given.truth.present, strict=True)):
        sounding = int(classes[present])  # lent to the silent source: what would be scored if sounds were swapped
        assert all(torch.equal(found[b, s], heat[b, sounding]) for s in range(2))


def test_maps_without_classes_have_no_cap():
    heat = noise((4, 1, SIDE, 2 * SIDE))
    unnamed = evaluate(Fixed(lambda _: Maps(heat, torch.tensor([-1]))), [duets()]).scalars
    named = evaluate(Fixed(lambda _: Maps(heat.expand(-1, CLASSES, -1, -1), torch.arange(CLASSES))), [duets()]).scalars
    assert "oracle/cap" not in unnamed and "oracle/cap" in named and "oracle/piap" in unnamed
