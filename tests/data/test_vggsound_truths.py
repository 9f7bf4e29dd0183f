"""Boxes and pickled masks of the benchmarks: what is odd in the published files, and what a hostile one may not do."""

from __future__ import annotations

import codecs
import json
import math
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from vggsound_miniature import BOXES, votes

from m2vsl.data.boxes import Boxes, rasterise, read_consensus, read_vggss
from m2vsl.data.pickles import read_array, read_pickled_mask


def slowly(boxes: list[list[float]], size: int) -> list[list[float]]:
    """Protocol 1.2, pixel by pixel: clip, multiply, truncate, fill end-exclusive, union."""
    mask = [[0.0] * size for _ in range(size)]
    for box in boxes:
        left, top, right, bottom = (int(size * min(max(value, 0.0), 1.0)) for value in box)
        for row in range(size):
            for column in range(size):
                if top <= row < bottom and left <= column < right:
                    mask[row][column] = 1.0
    return mask


@pytest.mark.parametrize(("id", "words", "boxes"), BOXES, ids=[id for id, _, _ in BOXES])
@pytest.mark.parametrize("size", [224, 37])
def test_boxes_fill_as_the_protocol_says(id: str, words: str, boxes: list[list[float]], size: int) -> None:
    mask = rasterise([tuple(box) for box in boxes], size)
    assert torch.equal(mask, torch.tensor(slowly(boxes, size)))
    assert bool(mask.any()) == (id != "M1P1xla8rg0_000000")  # one of the two empty truths


def test_overlapping_boxes_do_not_add_up() -> None:
    mask = rasterise([(0, 0, 0.5, 1), (0.25, 0, 1, 1), (0, 0, 1, 1)], 8)
    assert mask.max() == 1 and mask.min() == 1


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.2, 0.9), (0.1, 0.9, 0.9, 0.1), (0.3, 0.3, 0.3, 0.3), (0, 0, 1, math.nan)])
def test_a_box_with_nothing_inside_leaves_no_trace(box: tuple[float, float, float, float]) -> None:
    assert not rasterise([box], 16).any()
    assert Boxes("x", (box,)).inverted
    assert torch.equal(rasterise([box, (0, 0, 0.5, 0.5)], 16), rasterise([(0, 0, 0.5, 0.5)], 16))


def test_odd_boxes_are_told_apart() -> None:
    of = {id: Boxes(words, tuple(tuple(box) for box in boxes)) for id, words, boxes in BOXES}  # type: ignore[misc]
    assert [id for id in of if of[id].corrupt] == ["Db6Hjt0x28k_000056"]
    odd = ["UyCw7pCgYg8_000055", "M1P1xla8rg0_000000", "Db6Hjt0x28k_000056"]
    assert [id for id in of if of[id].inverted] == odd


def test_the_published_boxes(shared: Path) -> None:
    path = shared / "metadata" / "vggss.json"
    if not path.is_file():
        pytest.skip(f"VGG-SS boxes not present at {path}")
    of = read_vggss(path)
    assert len(of) == 5158
    assert sum(boxes.corrupt for boxes in of.values()) == 12 and sum(boxes.inverted for boxes in of.values()) == 18
    areas = {id: float(rasterise(boxes.boxes, 224).numpy().mean()) for id, boxes in of.items()}
    assert [id for id, area in areas.items() if area == 0] == ["M1P1xla8rg0_000000", "MKC9LvRivTM_000030"]
    assert np.mean(list(areas.values())) == pytest.approx(0.312, abs=5e-4)
    assert np.median(list(areas.values())) == pytest.approx(0.253, abs=5e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as json"),
        ('{"file": 1}', "expected a list of entries, got dict"),
        ('[{"file": "a", "class": "b"}]', r"entry 0: expected file, class and bbox .*'bbox'"),
        ('[{"file": "a", "class": "b", "bbox": [[0, 1, 2]]}]', r"entry 0: expected .* four numbers"),
        ('[{"file": "a", "class": "b", "bbox": [["x", 1, 2, 3]]}]', "entry 0"),
        (json.dumps([{"file": "a", "class": "b", "bbox": []}] * 2), "entry 1: .*a comes twice"),
    ],
)
def test_odd_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "vggss.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_vggss(path)
    assert str(path) in str(caught.value)


# Flickr


def test_two_votes_make_one_and_one_makes_a_half(tmp_path: Path) -> None:
    path = votes(tmp_path / "1.xml", [(10, 20, 100, 201), (50, 20, 256, 255), (60, 0, 70, 256)])
    for size in (224, 50):
        found, counted = read_consensus(path, size), np.zeros((size, size))
        for left, top, right, bottom in [(10, 20, 100, 201), (50, 20, 256, 255), (60, 0, 70, 256)]:
            across, down = np.meshgrid(np.arange(size), np.arange(size))
            ends = [int(size * value / 256) for value in (left, top, right, bottom)]
            counted += (across >= ends[0]) & (across < ends[2]) & (down >= ends[1]) & (down < ends[3])
        assert set(np.unique(counted)) == {0, 1, 2, 3}
        np.testing.assert_array_equal(found.numpy(), np.minimum(counted / 2, 1))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [([], "got no box"), ([(1, 2, 3)], r"got \[1, 2, 3\]"), ([(1, 2, 3, "x")], "cannot be read as boxes")],
)
def test_odd_annotations_are_refused(tmp_path: Path, boxes: list, message: str) -> None:
    path = votes(tmp_path / "1.xml", boxes)
    with pytest.raises(ValueError, match=message) as caught:
        read_consensus(path, 8)
    assert str(path) in str(caught.value)
    path.write_text("<annotation>")
    with pytest.raises(ValueError, match="cannot be read as boxes in XML"):
        read_consensus(path, 8)


# pickles

ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.eye(5, dtype=bool),
    np.linspace(-1, 1, 6).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3],
    np.arange(4, dtype=">i2").reshape(2, 2),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{'F' if a.flags.fnc else ''}")
def test_arrays_of_plain_numbers_are_read(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(array, protocol))
    found = read_array(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    path.write_bytes(pickle.dumps(array, protocol).replace(b"numpy._core", b"numpy.core"))  # of numpy 1
    if protocol < 4:  # from 4 on names are stored with their length
        np.testing.assert_array_equal(read_array(path), array)


def test_a_mask_is_what_lies_above_zero_by_nearest_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(np.array([[0, 1, -2, 255], [0.5, 0, 0, 7]])))
    mask = read_pickled_mask(path, 8)
    expected = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1.0]])
    assert mask.dtype == torch.float32 and torch.equal(mask, expected.repeat_interleave(4, 0).repeat_interleave(2, 1))
    path.write_bytes(pickle.dumps(np.zeros((2, 2, 3))))
    with pytest.raises(ValueError, match=r"mask of two axes, got shape \(2, 2, 3\)"):
        read_pickled_mask(path, 8)


class Calls:
    """A pickle of it calls something when it is read."""

    def __init__(self, what: object, *arguments: object) -> None:
        self.what, self.arguments = what, arguments

    def __reduce__(self) -> tuple:
        return self.what, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("what", "arguments", "name"),
    [
        (os.system, ("touch {}",), r"(posix|nt)\.system"),
        (subprocess.check_call, (["touch", "{}"],), r"(subprocess|commands)\.check_call"),
        (eval, ("open('{}', 'w').close()",), r"(builtins|__builtin__)\.eval"),
        (np.save, ("{}", 1), "numpy.save"),
        (np.memmap, ("{}", "u1", "w+", 0, 4), r"numpy(\.memmap)?\.memmap"),
        (getattr, ("", "upper"), r"(builtins|__builtin__)\.getattr"),
    ],
    ids=["system", "check_call", "eval", "save", "memmap", "getattr"],
)
def test_a_pickle_calls_nothing(tmp_path: Path, what: object, arguments: tuple, name: str, protocol: int) -> None:
    touched, path = tmp_path / "touched", tmp_path / "a.pkl"

    def filled(value: object) -> object:
        if isinstance(value, list):
            return [filled(one) for one in value]
        return value.format(touched) if isinstance(value, str) else value

    path.write_bytes(pickle.dumps([np.zeros(2), Calls(what, *map(filled, arguments))], protocol))
    with pytest.raises(ValueError, match=f"forbidden global {name}") as caught:
        read_array(path)
    assert str(path) in str(caught.value) and not list(tmp_path.glob("touched*"))
    if what in (os.system, subprocess.check_call, eval):  # it does, read by the book
        pickle.loads(path.read_bytes())
        assert touched.exists()


def test_a_pickle_changes_nothing_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    for name in (b"_codecs\nencode", b"numpy\ndtype", b"numpy._core.multiarray\n_reconstruct", b"numpy\nndarray"):
        for state in (b"}S'_call'\nNs", b"(N}S'_call'\nNst"):  # its attributes; its slots
            path.write_bytes(b"c" + name + b"\n" + state + b"b.")
            with pytest.raises(ValueError, match="cannot be read as a pickled array"):
                read_array(path)
    whole = ARRAYS[0]
    path.write_bytes(pickle.dumps(whole, 0))
    np.testing.assert_array_equal(read_array(path), whole)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "plain numbers, got list"),
        ({"mask": 1}, "plain numbers, got dict"),
        (np.array([1, "a"], dtype=object), "dtype of plain numbers, got object"),
        (np.array(["a"]), "dtype of plain numbers, got <U1"),
        (np.array([1j]), "dtype of plain numbers, got complex128"),
        (np.zeros(1, [("a", "u1")]), "plain numbers"),
        (np.float32(3), "forbidden global numpy._core.multiarray.scalar"),
        (np.ma.zeros(3), "forbidden global numpy.ma"),
        (np.dtype("u1"), "plain numbers, got _Dtype"),
        (codecs.lookup, "forbidden global _codecs.lookup"),
        (torch.zeros(2), "forbidden global torch"),
    ],
    ids=["list", "dict", "objects", "text", "complex", "fields", "scalar", "masked", "dtype", "function", "tensor"],
)
def test_anything_but_an_array_of_plain_numbers_is_refused(tmp_path: Path, value: object, message: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=message) as caught:
        read_array(path)
    assert str(path) in str(caught.value)


def test_broken_pickles_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    whole = pickle.dumps(np.zeros((3, 3)), 2)
    codec = b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR."
    for data in (b"", whole[:-30], b"not a pickle", whole.replace(b"K\x03K\x03", b"K\x09K\x09"), codec, b"Pname\n."):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="cannot be read as a pickled array") as caught:
            read_array(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_array(tmp_path / "nowhere.pkl")
