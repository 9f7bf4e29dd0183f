"""From an experiment to its record: loaded, resumed or trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import small_files
from scenes import photo_folder

from m2vsl import experiment as module
from m2vsl import presets, records
from m2vsl.data.loader import Waves
from m2vsl.experiment import Experiment, run, scored, trained
from m2vsl.report import comparison
from m2vsl.training.feed import Feed
from m2vsl.types import Batch

TINY = ["model.encoder.dim=16", "model.encoder.audio_width=4", "model.encoder.weights=none", "train.precision=fp32"]
SHORT = ["data.test_length=4", "data.val_length=2", "train.batch_size=2", "train.steps=2", "data.size=32"]


def tiny(method: str, task: str = "duet", *more: str, seed: int = 0) -> Experiment:
    """An experiment of seconds on synthetic pictures of 32 px."""
    pairs = [pair for pair in TINY if method not in module.CONTROLS or not pair.startswith("model")]
    return presets.override(presets.experiment(method, task, preset="smoke", seed=seed), [*pairs, *SHORT, *more])


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and checkpoints of a test are its own."""
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("M2VSL_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def never_trains(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After a call of it, training is an error."""

    def forbid() -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(module, "train", refuse)

    return forbid


def of_folder(root: Path, *more: str) -> Experiment:
    made = presets.experiment("ez_vsl", "duet", preset="smoke", dataset="folder", data_root=str(root))
    pairs = ["data.size=32", "train.batch_size=2", "train.steps=2", "data.length=4"]
    return presets.override(made, [*TINY, *pairs, *more])


class TestIdentity:
    """What a run is called."""

    def test_the_tree_holds_plain_values_and_no_place(self, tmp_path: Path) -> None:
        tree = of_folder(tmp_path / "clips").tree()
        text = json.dumps(tree)
        assert str(tmp_path) not in text and not re.search(r'"/', text)
        assert tree["data"]["root"] == "clips"

    def test_the_seed_and_the_place_of_the_folder_do_not_enter_the_hash(self, tmp_path: Path) -> None:
        one, other = of_folder(tmp_path / "a" / "clips"), of_folder(tmp_path / "b" / "clips")
        assert one.record_path() == other.record_path() and one.run_dir() == other.run_dir()
        seeded = replace(one, seed=7)
        hashes = {records.config_hash(e.tree()) for e in (one, other, seeded)}
        assert len(hashes) == 1 and seeded.record_path().name.endswith("-s7.json")
        assert of_folder(tmp_path / "other").record_path() != one.record_path()

    def test_memory_for_files_is_no_part_of_it_but_every_choice_is(self, tmp_path: Path) -> None:
        one = of_folder(tmp_path)
        assert of_folder(tmp_path, "data.cache_mb=1").record_path() == one.record_path()
        for pair in ("data.fold=3", "audio.crop=first", "model.temperature=0.1", "train.lr=0.5"):
            assert of_folder(tmp_path, pair).record_path() != one.record_path()

    def test_tests_that_need_the_same_training_share_it(self) -> None:
        base = tiny("ez_vsl", "duet").run_dir()
        assert tiny("ez_vsl", "single").run_dir() == base  # learns from solos, whatever it is tested on
        assert tiny("ez_vsl_ogl", "duet").run_dir() == base
        assert tiny("ez_vsl_ogl", "duet", "model.ogl_alpha=0.9").run_dir() == base
        assert tiny("ez_vsl", "duet", "model.temperature=0.1").run_dir() != base
        assert tiny("m2vsl", "duet").run_dir() != tiny("m2vsl", "single").run_dir()
        assert tiny("ez_vsl", seed=1).run_dir() != base

    def test_what_is_read_at_test_alone_shares_a_training_and_has_a_record_of_its_own(self) -> None:
        heard, both = tiny("m2vsl"), tiny("m2vsl", "duet", "model.presence=both", "model.gate=true")
        assert heard.run_dir() == both.run_dir() and heard.record_path() != both.record_path()
        assert tiny("m2vsl", "duet", "model.depth=1").run_dir() != heard.run_dir()

    def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone(self) -> None:
        torch.manual_seed(5)
        before = torch.get_rng_state()
        one, two, other = (tiny("ez_vsl", seed=s).build(12) for s in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(one.project.weight, two.project.weight)
        assert not torch.equal(one.project.weight, other.project.weight)

    @pytest.mark.parametrize(("field", "value"), [("method", "x"), ("dataset", "x"), ("task", "x")])
    def test_unknown_names_are_refused(self, field: str, value: str) -> None:
        with pytest.raises(ValueError, match=f"expected {field} among"):
            replace(tiny("centre"), **{field: value})


class TestRun:
    """load, else resume, else train."""

    def test_a_record_and_its_rows_are_written_and_found_again(self, never_trains: Callable[[], None]) -> None:
        chosen = tiny("ez_vsl")
        record = run(chosen, progress=False)
        assert chosen.record_path().is_file() and chosen.complete()
        assert record.n == 4 + 8  # pictures whose sources all sound, and each source alone
        assert record.metrics["train/steps"] == 2 and record.parameters > 1000
        assert {"mixture/oracle/piap", "one/oracle/half", "one/swapped/oracle/half"} <= set(record.metrics)
        assert len(records.load_rows(chosen.record_path(), "mixture")) == 8
        rows = records.load_rows(chosen.record_path(), "one")
        alone = [row["framewise-matched-oracle"] for row in rows if row["sounds"] == "True"]
        assert record.metrics["one/framewise-matched-oracle/iou"] == pytest.approx(sum(alone) / 8, rel=1e-4)
        never_trains()
        again = run(chosen, progress=False)
        assert again.metrics == pytest.approx(record.metrics, rel=1e-5) and again.created == record.created

    def test_training_flushes_denormals_and_puts_them_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny_number, seen, train = torch.tensor(1e-40), [], module.train
        monkeypatch.setattr(module, "train", lambda *a, **k: (seen.append(float(tiny_number * 1)), train(*a, **k))[1])
        run(tiny("ez_vsl"), progress=False)
        assert seen == [0] and float(tiny_number * 1) > 0

    def test_where_spectrograms_are_made_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fed: list[type] = []
        placed = Feed.placed
        monkeypatch.setattr(Feed, "placed", lambda self, batch: fed.append(type(batch)) or placed(self, batch))
        plain, _ = trained(tiny("m2vsl"))
        there, _ = trained(tiny("m2vsl", "duet", "train.sounds_on_device=true"))
        assert fed == [Batch] * 2 + [Waves] * 2
        assert all(map(torch.equal, plain.state_dict().values(), there.state_dict().values()))

    def test_a_lost_record_is_made_again_from_the_checkpoint(self, never_trains: Callable[[], None]) -> None:
        chosen = tiny("ez_vsl")
        first = run(chosen, progress=False)
        chosen.record_path().unlink()
        assert not tiny("ez_vsl", "duet", "train.steps=3").complete()
        second = run(chosen, progress=False)
        same = {k: v for k, v in first.metrics.items() if not k.startswith("train/")}
        assert {k: v for k, v in second.metrics.items() if k in same} == pytest.approx(same)
        assert [row["step"] for row in second.history] == [row["step"] for row in first.history]

    def test_fresh_trains_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen, calls, train = tiny("ez_vsl"), [], module.train
        first = run(chosen, progress=False)
        log = next(chosen.run_dir().glob("log.jsonl"))
        log.write_text("")
        monkeypatch.setattr(module, "train", lambda *a, **k: calls.append(1) or train(*a, **k))
        second = run(chosen, fresh=True, progress=False)
        assert calls == [1] and log.read_text()  # the steps were made again
        timeless = {k: v for k, v in first.metrics.items() if k != "train/samples_per_second"}
        assert {k: v for k, v in second.metrics.items() if k in timeless} == pytest.approx(timeless)

    def test_object_guidance_is_scored_on_what_ez_vsl_learnt(self, never_trains: Callable[[], None]) -> None:
        plain, _ = trained(tiny("ez_vsl"), progress=False)
        chosen = tiny("ez_vsl_ogl")
        assert chosen.complete()
        guided, history = trained(chosen, progress=False)
        assert history.step == 2 and not guided.training
        assert all(torch.equal(v, guided.state_dict()[k]) for k, v in plain.state_dict().items())
        assert run(chosen, progress=False).method == "ez_vsl_ogl"

    @pytest.mark.parametrize("method", module.CONTROLS)
    def test_controls_are_scored_without_training(self, method: str, never_trains: Callable[[], None]) -> None:
        never_trains()
        record = run(tiny(method, "single"), progress=False)
        assert record.parameters == 0 and record.history == [] and "train/steps" not in record.metrics
        assert (method != "everything") == (0 < record.metrics["solo/framewise-matched-oracle/iou"] <= 1)

    def test_the_bound_is_above_the_oracle_and_the_oracle_above_all(self) -> None:
        names = ("bound", "oracle", "centre")
        bound, oracle, centre = (
            run(tiny(m, "single"), progress=False).metrics["solo/framewise-area50-oracle/iou"] for m in names
        )
        assert bound >= oracle - 1e-6 > centre - 1e-6

    def test_a_record_holds_the_published_evaluators_and_what_the_map_does_without_its_sound(self) -> None:
        record = run(tiny("centre", "duet"), progress=False)
        assert {"ezvsl", "dsol-0.2", "avsbench", "framewise-area50-oracle"} <= set(record.protocols)
        assert record.metrics["mixture/ezvsl/auc"] == record.metrics["mixture/framewise-area50-oracle/auc"]
        assert "mixture/avsbench/f" in record.metrics and "mixture/silence/remaining" not in record.metrics
        for sound in ("silence", "noise"):
            assert record.metrics[f"one/{sound}/separability"] == record.metrics[f"one/{sound}/remaining"] == 0.5
        columns = [*comparison.evaluators("duet"), *comparison.hearing("duet"), *comparison.interactive()]
        asked = {column.metric for column in columns}
        assert {m for m in asked if "/offscreen/" not in m and "predicted" not in m} <= set(record.metrics)
        rows = records.load_rows(record.path(), "mixture")
        assert "framewise-area50-oracle" in rows[0] and not {"ezvsl", "confidence", "tvsl/ap"} & set(rows[0])

    def test_scoring_again_keeps_the_weights(self) -> None:
        chosen = tiny("ez_vsl", "single")
        first = run(chosen, progress=False)
        second = scored(chosen, progress=False)
        timeless = {k: v for k, v in first.metrics.items() if k != "train/samples_per_second"}
        assert {k: v for k, v in second.metrics.items() if k in timeless} == pytest.approx(timeless)

    def test_too_few_validation_samples_are_refused(self) -> None:
        with pytest.raises(ValueError, match="expected at least 2 validation samples, a loss contrasts them, got 1"):
            run(tiny("ez_vsl", "duet", "data.val_length=1"), progress=False)

    def test_a_batch_larger_than_the_validation_list_is_held_against_all_of_it(self) -> None:
        chosen = tiny("ez_vsl", "single", "train.batch_size=6", "data.val_length=3")
        (batch,) = module._held_out(chosen) or ()
        assert batch.keys == tuple(chosen.samples("val").ids())
        assert run(chosen, progress=False).metrics["train/best_step"] > 0


class TestBadInput:
    """A clear line, nothing lost."""

    def test_a_place_that_cannot_be_written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "file"))
        with pytest.raises(OSError, match="not written") as caught:
            run(tiny("centre", "single"), progress=False)
        assert str(tmp_path / "file") in str(caught.value)

    def test_a_full_disk_keeps_the_earlier_record(self) -> None:
        chosen = tiny("centre", "single")
        run(chosen, progress=False)
        before = chosen.record_path().read_bytes()
        with pytest.raises(OSError, match="not written"), small_files(200):
            run(chosen, fresh=True, progress=False)
        assert chosen.record_path().read_bytes() == before

    def test_bad_files_are_refused_or_left_out_and_listed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = photo_folder(tmp_path / "clips")
        broken = sorted((root / "audio").glob("*/*.wav"))[0]
        broken.write_bytes(b"")
        with pytest.raises(ValueError, match=r"(?s)1 problem\(s\).*--skip-bad") as caught:
            [of_folder(root).samples(split) for split in ("train", "val", "test")]
        assert str(broken) in str(caught.value)
        made = of_folder(root, "data.skip_bad=true")
        sets = [made.samples(split) for split in ("train", "val", "test")]
        told = capsys.readouterr().err
        assert "1 problem(s), left out:" in told and told.count(f"  {broken}: ") == 1
        assert sum(len(one.skipped) for one in sets) == 1

    def test_a_folder_is_run_and_recorded_by_its_name(self, tmp_path: Path) -> None:
        chosen = of_folder(photo_folder(tmp_path / "clips"))
        record = run(chosen, progress=False)
        assert record.dataset == "clips" and chosen.record_path().parts[-3] == "clips"
        assert str(tmp_path) not in chosen.record_path().read_text()


def test_maps_of_the_first_pictures_are_kept_beside_the_record_of_seed_0() -> None:
    first, second = tiny("ez_vsl"), tiny("ez_vsl", seed=1)
    run(first, progress=False)
    run(second, progress=False)
    kept = records.load_maps(first.record_path(), "mixture")  # of four pictures of 32 px; sources are padded
    assert len(kept) == 4 and kept.shape[-2:] == (8, 16) and kept[:, :2].flatten(2).any(-1).all()
    assert list(second.record_path().parent.glob("*-s1.*.npz")) == []
    assert list(first.record_path().parent.glob("*.one.npz")) == []


def test_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, _ = trained(tiny("ez_vsl"), progress=False)
    monkeypatch.setenv("M2VSL_WORKERS", "2")
    monkeypatch.setenv("M2VSL_RUNS", str(tmp_path / "others"))
    two, _ = trained(tiny("ez_vsl"), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
