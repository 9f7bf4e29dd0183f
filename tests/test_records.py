"""Records: stable, small, whole or not at all."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import small_files

from m2vsl import paths, records
from m2vsl.records import Record, config_hash


@pytest.fixture
def record() -> Record:
    return Record(
        method="m2vsl", dataset="synthetic", task="duet", preset="smoke", seed=3,
        experiment={"seed": 3, "train": {"lr": 0.1 + 0.2, "steps": 10}},
        metrics={"duet/ciou": 1 / 3, "duet/ap": math.nan},
        protocols={"duet": {"size": (224, 448)}}, n=10, ids=records.id_hash(["a", "b"]), commit="unknown", dirty=None,
        versions={"python": "3.11"}, hardware={"cpu": "c", "cores": 2, "gpu": ""}, created="2026-01-01T00:00:00+00:00",
        seconds=12.3456789, parameters=7, history=[{"step": 1, "loss": 2 / 3}, {"step": 2, "loss": math.nan}],
    )  # fmt: skip


def test_a_record_survives_saving_and_loading(record: Record, tmp_path: Path) -> None:
    path = records.save(record, tmp_path)
    assert path == tmp_path / "smoke" / "synthetic" / "duet" / f"m2vsl-{record.hash}-s3.json"
    assert path == records.path_of(
        tmp_path, preset="smoke", dataset="synthetic", task="duet", method="m2vsl", hash=record.hash, seed=3
    )
    back = records.load(path)
    assert back.metrics["duet/ciou"] == 0.333333
    assert math.isnan(back.metrics["duet/ap"]) and math.isnan(back.history[1]["loss"])
    assert back.experiment == record.experiment  # configuration is not rounded
    assert back.protocols == {"duet": {"size": [224, 448]}}
    assert back.seconds == 12.3457
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_default_root_is_the_folder_of_results(record: Record, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path))
    assert records.save(record).is_relative_to(tmp_path)
    assert records.find() == records.find(tmp_path) != []


def test_the_file_is_strict_json_stable_and_small(record: Record, tmp_path: Path) -> None:
    path = records.save(record, tmp_path)
    first = path.read_bytes()

    def refuse(constant: str) -> None:
        raise AssertionError(f"not strict json: {constant}")

    content = json.loads(first, parse_constant=refuse)
    assert content["metrics"]["duet/ap"] is None
    assert list(content) == sorted(content)
    shuffled = replace(record, metrics=dict(reversed(record.metrics.items())))
    assert records.save(shuffled, tmp_path).read_bytes() == first
    assert records.save(records.load(path), tmp_path).read_bytes() == first
    assert len(first) < 1200
    assert first.decode().count("\n") < 30


def test_the_hash_is_of_the_values_not_of_their_order_and_seeds_share_it() -> None:
    assert config_hash({"a": 1, "b": (1, 2), "seed": 1}) == config_hash({"b": [1, 2], "a": 1, "seed": 2})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"a": {"seed": 1}}) != config_hash({"a": {"seed": 2}})
    assert config_hash({"a": 1.00000001}) != config_hash({"a": 1.00000002})
    assert config_hash({"seed": 1}, leave_out=()) != config_hash({"seed": 2}, leave_out=())
    assert len(config_hash({})) == 12 and config_hash({}) == "44136fa355b3"  # sha256 of "{}"


def test_the_ids_hash_in_order() -> None:
    assert records.id_hash(["a", "b"]) != records.id_hash(["b", "a"])


def test_plain_takes_tensors_and_arrays_and_refuses_the_rest() -> None:
    assert records.plain({"a": torch.tensor(1.23456789), "b": np.float32(2), "c": np.arange(2), "d": {2, 1}}) == {
        "a": 1.23457, "b": 2.0, "c": [0, 1], "d": [1, 2],
    }  # fmt: skip
    assert records.plain((float("inf"), True, None)) == [None, True, None]
    with pytest.raises(TypeError, match="plain values, got object"):
        records.plain(object())


def test_find_filters_by_fields_and_refuses_unknown_ones(record: Record, tmp_path: Path) -> None:
    for seed in (2, 1):
        records.save(replace(record, seed=seed), tmp_path)
    records.save(replace(record, method="ez_vsl", task="single"), tmp_path)
    assert [r.seed for r in records.find(tmp_path, method="m2vsl")] == [1, 2]
    assert [r.method for r in records.find(tmp_path, hash=record.hash, task="single")] == ["ez_vsl"]
    assert records.find(tmp_path, preset="full") == []
    assert records.find(tmp_path / "nowhere") == []
    with pytest.raises(ValueError, match=r"unknown fields \['metod'\].*'method'"):
        records.find(tmp_path, metod="m2vsl")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text[: len(text) // 2], "expected json"),
        (lambda text: text.replace('"n": 10,', ""), r"missing: \['n'\]"),
        (lambda text: text.replace('"n": 10,', '"n": 10, "m": 1,'), r"unknown: \['m'\]"),
        (lambda text: text.replace('"steps": 10', '"steps": 11'), "stated"),
        (lambda text: "[]", "not a record"),
    ],
)
def test_a_damaged_record_is_named(record: Record, tmp_path: Path, spoil, told: str) -> None:
    path = records.save(record, tmp_path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ValueError, match=told) as caught:
        records.find(tmp_path)
    assert str(path) in str(caught.value)


def test_a_full_disk_leaves_the_earlier_record(record: Record, tmp_path: Path) -> None:
    path = records.save(record, tmp_path)
    before = path.read_bytes()
    with small_files(100), pytest.raises(OSError, match="nothing was changed") as caught:
        records.save(replace(record, n=11), tmp_path)
    assert caught.value.filename == str(path) and caught.value.errno
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_unwritable_place_is_named(record: Record, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="not written") as caught:
        records.save(record, tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_nothing_is_left_when_renaming_fails(record: Record, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError, match="not written"):
        records.save(record, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_rows_come_back_and_large_ones_are_compressed(record: Record, tmp_path: Path) -> None:
    path = records.save(record, tmp_path)
    rows = [{"key": "photo, one", "iou": 1 / 3, "ap": math.nan}, {"key": "two", "iou": 1.0, "ap": 0.5}]
    small = records.save_rows(path, rows)
    assert small == path.with_name(path.stem + ".rows.csv")
    assert small.read_text() == 'key,iou,ap\n"photo, one",0.333333,\ntwo,1.0,0.5\n'
    back = records.load_rows(path)
    assert back[0]["key"] == "photo, one" and back[1] == rows[1] and math.isnan(back[0]["ap"])
    large = records.save_rows(path, rows * 10_000)
    assert large.name.endswith(".rows.csv.gz") and not small.exists()
    first = large.read_bytes()
    assert records.save_rows(path, rows * 10_000).read_bytes() == first  # no time stamp inside
    assert len(records.load_rows(path)) == 20_000
    assert records.save_rows(path, rows) == small and not large.exists()
    assert len(records.find(tmp_path)) == 1  # rows are no records


def test_rows_of_one_table_share_their_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \['a'\], got \['b'\]"):
        records.save_rows(tmp_path / "r.json", [{"a": 1}, {"b": 1}])
    with pytest.raises(ValueError, match="no rows"):
        records.save_rows(tmp_path / "r.json", [])


def test_provenance_fills_the_fields_of_a_record(record: Record) -> None:
    told = records.provenance()
    assert replace(record, **told).commit == told["commit"]
    assert set(told["versions"]) == {"python", "torch", "torchvision", "m2vsl"}
    assert told["hardware"]["cpu"] and told["hardware"]["cores"] >= 1
    assert told["created"].endswith("+00:00")


def test_outside_of_a_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    told = records.provenance()
    assert (told["commit"], told["dirty"]) == ("unknown", None)
    (tmp_path / "inner").mkdir()
    os.system(f"git init -q {tmp_path}")
    monkeypatch.setattr(paths, "ROOT", tmp_path / "inner")  # installed inside of another project's checkout
    assert records.provenance()["commit"] == "unknown"


def test_new_records_do_not_make_the_code_dirty(tmp_path: Path, monkeypatch) -> None:
    git = f"git -C {tmp_path} -c user.name=n -c user.email=e"
    (tmp_path / "code.py").write_text("1")
    os.system(f"git init -q {tmp_path}; {git} add . ; {git} commit -qm first")
    monkeypatch.setattr(paths, "ROOT", tmp_path.resolve())
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "r.json").write_text("{}")
    told = records.provenance()
    assert len(told["commit"]) == 40 and told["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert records.provenance()["dirty"] is True


def test_maps_come_back_in_half_precision(record: Record, tmp_path: Path) -> None:
    path, maps = records.save(record, tmp_path), torch.randn(5, 2, 7, 14)
    kept = records.save_maps(path, maps, "mixture")
    assert kept.name == f"{path.stem}.mixture.npz" and kept.stat().st_size < 2 * maps.numel() + 500
    assert torch.equal(records.load_maps(path, "mixture"), maps.half().float())
    with pytest.raises(FileNotFoundError, match="solo"):
        records.load_maps(path, "solo")


def test_keys_stay_text_where_they_look_like_numbers(tmp_path):
    keys = ["12_000030", "1e5", "nan", "007"]
    path = tmp_path / "record.json"
    records.save_rows(path, [{"key": key, "iou": 0.5} for key in keys])
    assert [row["key"] for row in records.load_rows(path)] == keys
    assert {row["iou"] for row in records.load_rows(path)} == {0.5}
