"""Heat maps of other programs: what is read, to the last value, and what is refused, by name."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from m2vsl.data.heatmaps import Coverage, Heatmaps, coverage
from m2vsl.records import id_hash

RAMP = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


def save(path: Path, array: Any, **options: Any) -> Path:
    """An array as .npy, .npz or, if the ending says so, picture; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, array)
    else:
        Image.fromarray(array).save(path, **options)
    return path


def kinds(maps: Heatmaps) -> list[tuple[str, str]]:
    """(kind, place below the root) of every problem."""
    return [(problem.kind, problem.path.relative_to(maps.path).as_posix()) for problem in maps.problems]


def refused(path: Path, *parts: str) -> None:
    """The only clip of the folder of `path` is refused, and the message names the file and says all `parts`."""
    maps = Heatmaps(path.parent)
    (id,) = maps.ids
    with pytest.raises(ValueError) as error:
        maps.read(id)
    assert [part for part in (str(path), *parts) if part not in str(error.value)] == [], str(error.value)


class TestLayout:
    """Folder and archive."""

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_one_map_and_several_without_names(self, tmp_path: Path, name: str) -> None:
        save(tmp_path / name, RAMP)
        save(tmp_path / name.replace("a", "b"), np.stack([RAMP, 1 - RAMP]))
        maps = Heatmaps(tmp_path)
        assert maps.ids == ("a", "b") and maps.problems == ()
        one, two = maps.read("a"), maps.read("b")
        assert one.names == two.names == () and one.presence is two.presence is None
        assert torch.equal(one.heat, torch.from_numpy(RAMP)[None]) and one.heat.dtype == torch.float32
        assert torch.equal(two.heat, torch.from_numpy(np.stack([RAMP, 1 - RAMP])))

    def test_ids_of_any_letters_and_endings_of_any_case(self, tmp_path: Path) -> None:
        ids = ("-a_b.c-1_000030", "1.5", "_x", "ü ber")
        for id, ending in zip(ids, (".npy", ".npy", ".npz", ".npy"), strict=True):
            save(tmp_path / f"{id}{ending}", RAMP)
        (tmp_path / "_x.npz").rename(tmp_path / "_x.NPZ")
        (tmp_path / "1.5.npy").rename(tmp_path / "1.5.NPY")
        maps = Heatmaps(str(tmp_path))
        assert maps.ids == ids and maps.problems == ()
        assert all(maps.read(id).heat.shape == (1, 3, 4) for id in ids)

    def test_named_maps_come_in_the_order_of_their_classes(self, tmp_path: Path) -> None:
        save(tmp_path / "a" / "dog.npy", RAMP)
        save(tmp_path / "a" / "bell, church.png", np.full((3, 4), 51, np.uint8))
        save(tmp_path / "a" / "cat.npy", RAMP[None] * 2)
        clip = Heatmaps(tmp_path).read("a")
        assert clip.names == ("bell, church", "cat", "dog") and clip.presence is None
        assert torch.equal(clip.heat[1:], torch.from_numpy(np.stack([RAMP * 2, RAMP])))
        assert clip.heat[0].eq(0.2).all()

    @pytest.mark.parametrize("style", ["{}", "{:03d}"])
    def test_names_that_count_are_an_order(self, tmp_path: Path, style: str) -> None:
        for i in range(11):
            save(tmp_path / "a" / f"{style.format(i)}.npy", RAMP + i)
        clip = Heatmaps(tmp_path).read("a")
        assert clip.names == () and clip.heat[:, 0, 0].tolist() == list(range(11))

    @pytest.mark.parametrize("names", [("1", "2"), ("0", "00"), ("0", "2"), ("0", "dog"), ("0", "²")])
    def test_other_numbers_are_classes(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            save(tmp_path / "a" / f"{name}.npy", RAMP)
        assert Heatmaps(tmp_path).read("a").names == names

    def test_an_archive_means_the_same_as_a_folder(self, tmp_path: Path) -> None:
        arrays = {"x.1": RAMP, "y": np.stack([RAMP, RAMP + 1]), "z/dog": RAMP, "z/cat": RAMP + 2, "n/1": RAMP + 3}
        arrays["n/0"] = RAMP
        np.savez(tmp_path / "maps.npz", **arrays)
        for key, array in arrays.items():
            save(tmp_path / "folder" / f"{key}.npy", array)
        archive, folder = Heatmaps(tmp_path / "maps.npz"), Heatmaps(tmp_path / "folder")
        assert archive.ids == folder.ids == ("n", "x.1", "y", "z") and archive.problems == ()
        for id in archive.ids:
            assert archive.read(id).names == folder.read(id).names
            assert torch.equal(archive.read(id).heat, folder.read(id).heat)
        assert archive.read("z").names == ("cat", "dog") and archive.read("z").heat[0, 0, 0] == 2

    def test_an_archive_is_read_by_several_processes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        np.savez(tmp_path / "maps.npz", a=RAMP)
        maps = Heatmaps(tmp_path / "maps.npz")
        first = maps._archive()
        assert maps._archive() is first
        assert torch.equal(pickle.loads(pickle.dumps(maps)).read("a").heat, maps.read("a").heat)
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
        assert maps._archive() is not first

    def test_nothing_is_read_before_it_is_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "a.npy").write_bytes(b"no array")
        (tmp_path / "b.png").write_bytes(b"no picture")
        assert Heatmaps(tmp_path).ids == ("a", "b") and Heatmaps(tmp_path).problems == ()

    def test_linked_folders_are_followed_once(self, tmp_path: Path) -> None:
        save(tmp_path / "elsewhere" / "dog.npy", RAMP)
        root = tmp_path / "maps"
        root.mkdir()
        (root / "a").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
        maps = Heatmaps(root)
        assert maps.ids == ("a",) and maps.read("a").names == ("dog",) and maps.problems == ()


class TestProblems:
    """What is not used is listed."""

    @pytest.mark.parametrize("other", ["a.png", "a.npz", "a.NPY", "a/dog.npy", "a/0.png"])
    def test_one_id_by_two_files(self, tmp_path: Path, other: str) -> None:
        array = np.zeros((3, 4), np.uint8)
        save(tmp_path / "a.npy", array)
        made = save(tmp_path / other if "NPY" not in other else tmp_path / "other.npy", array)
        made.rename(tmp_path / other)
        save(tmp_path / "b.npy", array)
        maps = Heatmaps(tmp_path)
        assert maps.ids == ("b",) and kinds(maps) == [("id", "a")]
        message = str(maps.problems[0])
        assert "a.npy" in message and other.split("/")[0] in message and "got 2" in message
        with pytest.raises(ValueError, match="none of a is used"):
            maps.read("a")

    def test_one_name_by_two_files(self, tmp_path: Path) -> None:
        for name in ("dog.npy", "dog.png", "cat.npy"):
            save(tmp_path / "a" / name, np.zeros((3, 4), np.uint8))
        maps = Heatmaps(tmp_path)
        assert maps.ids == () and "a/dog.npy, a/dog.png" in str(maps.problems[0])

    @pytest.mark.parametrize("keys", [("a", "a"), ("a", "a/dog"), ("a/dog", "a/dog")])
    def test_one_id_by_two_keys(self, tmp_path: Path, keys: tuple[str, str]) -> None:
        array = save(tmp_path / "x.npy", RAMP).read_bytes()
        with zipfile.ZipFile(tmp_path / "maps.npz", "w") as archive, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Duplicate name")
            for key in ("b", *keys):
                archive.writestr(f"{key}.npy", array)
        maps = Heatmaps(tmp_path / "maps.npz")
        assert maps.ids == ("b",) and kinds(maps) == [("id", "a")]

    @pytest.mark.parametrize(
        "name", ["a.jpg", "a.JPEG", "a.pkl", "a.pt", "a.mat", "a.h5", "a.npy.gz", "a/b/c.npy", "a/b/c/d.png", "a/c.npz"]
    )
    def test_arrays_and_pictures_that_are_not_read(self, tmp_path: Path, name: str) -> None:
        save(tmp_path / "good.npy", RAMP)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        maps = Heatmaps(tmp_path)
        assert maps.ids == ("good",) and kinds(maps) == [("file", name)]
        assert ("JPEG" in maps.problems[0].message) is name.lower().endswith(("jpg", "jpeg"))

    @pytest.mark.parametrize("name", ["b.png", "c.npz", "d.pkl", "a/b/c.npy", "/e.npy"])
    def test_entries_of_an_archive_that_are_not_read(self, tmp_path: Path, name: str) -> None:
        np.savez(tmp_path / "maps.npz", good=RAMP)
        with zipfile.ZipFile(tmp_path / "maps.npz", "a") as archive:
            archive.writestr(name, b"")
        maps = Heatmaps(tmp_path / "maps.npz")
        assert maps.ids == ("good",) and [problem.kind for problem in maps.problems] == ["file"]
        assert name in str(maps.problems[0])

    def test_what_is_no_concern(self, tmp_path: Path) -> None:
        save(tmp_path / "good.npy", RAMP)
        for name in (".hidden.npy", "README", "notes.txt", "scores.csv", "config.json", ".cache/x.npy", "a/._dog.npy"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        maps = Heatmaps(tmp_path)
        assert maps.ids == ("good",) and maps.problems == ()

    def test_a_name_that_is_not_text(self, tmp_path: Path) -> None:
        save(tmp_path / "good.npy", RAMP)
        try:
            os.rename(save(tmp_path / "a.npy", RAMP), os.fsencode(tmp_path) + b"/\xff.npy")
        except OSError:
            pytest.skip("this file system holds names in UTF-8 only")
        maps = Heatmaps(tmp_path)
        assert maps.ids == ("good",) and maps.problems[0].kind == "file" and "UTF-8" in maps.problems[0].message

    def test_no_maps_at_all(self, tmp_path: Path) -> None:
        (problem,) = Heatmaps(tmp_path).problems
        assert problem.kind == "folder" and "expected maps" in problem.message

    def test_a_folder_that_cannot_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save(tmp_path / "good.npy", RAMP)
        save(tmp_path / "a" / "dog.npy", RAMP)
        scan = os.scandir

        def deny(path: str) -> Any:
            if str(path).endswith("a"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", deny)
        maps = Heatmaps(tmp_path)
        assert maps.ids == ("good",) and kinds(maps) == [("folder", "a")]

    def test_a_place_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            Heatmaps(tmp_path / "nowhere")
        with pytest.raises(ValueError, match=r"maps\.npy: expected a folder"):
            Heatmaps(save(tmp_path / "maps.npy", RAMP))
        (tmp_path / "maps.npz").write_bytes(b"PK\x03\x04 cut")
        with pytest.raises(ValueError, match=r"maps\.npz: cannot be read as an \.npz"):
            Heatmaps(tmp_path / "maps.npz")

    def test_an_id_that_is_not_there(self, tmp_path: Path) -> None:
        save(tmp_path / "a.npy", RAMP)
        with pytest.raises(ValueError, match="got 'b'"):
            Heatmaps(tmp_path).read("b")


class TestPictures:
    """Grey values are exact; overlays are refused."""

    def test_every_value_of_16_bits(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", np.arange(65536, dtype=np.uint16).reshape(256, 256))
        heat = Heatmaps(tmp_path).read("a").heat
        assert heat.dtype == torch.float32
        truth = torch.arange(65536).double().reshape(1, 256, 256) / 65535
        assert (heat.double() - truth).abs().max() < 2**-24 and len(heat.unique()) == 65536
        assert (heat.min(), heat.max()) == (0, 1)

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
    def test_every_value_of_8_bits(self, tmp_path: Path, mode: str) -> None:
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert(mode).save(tmp_path / "a.png")
        heat = Heatmaps(tmp_path).read("a").heat
        assert torch.equal(heat, (torch.arange(256).double() / 255).float().reshape(1, 16, 16))

    def test_bilevel(self, tmp_path: Path) -> None:
        bits = np.array([[True, False, True], [False, False, True]])
        save(tmp_path / "a.png", bits)
        assert (tmp_path / "a.png").read_bytes()[24] == 1, "one bit per pixel"
        assert Heatmaps(tmp_path).read("a").heat.tolist() == [[[1, 0, 1], [0, 0, 1]]]

    def test_colours(self, tmp_path: Path) -> None:
        pixels = np.full((3, 4, 3), 7, np.uint8)
        pixels[2, 3, 1] = 8
        refused(save(tmp_path / "a.png", pixels), "a coloured overlay is no heat map")

    def test_palette(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((3, 4), np.uint8)).convert("P").save(tmp_path / "a.png")
        refused(tmp_path / "a.png", "got a palette")

    @pytest.mark.parametrize("channels", [2, 4])
    def test_alpha(self, tmp_path: Path, channels: int) -> None:
        pixels = np.full((3, 4, channels), 255, np.uint8)
        pixels[0, 0, -1] = 254
        refused(save(tmp_path / "a.png", pixels), "transparent")

    def test_a_transparent_grey(self, tmp_path: Path) -> None:
        refused(save(tmp_path / "a.png", np.zeros((3, 4), np.uint8), transparency=9), "transparent")

    def test_colours_of_16_bits(self, tmp_path: Path) -> None:
        refused(png(tmp_path / "a.png", 2, 2, depth=16, colour=2, row=12), "got 16-bit channels")

    def test_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (1, 200)]
        frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
        refused(tmp_path / "a.png", "got an animation")

    def test_a_picture_to_be_turned(self, tmp_path: Path) -> None:
        turned = Image.Exif()
        turned[0x0112] = 6
        refused(save(tmp_path / "a.png", np.zeros((3, 4), np.uint8), exif=turned), "to be turned")

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg", np.zeros((3, 4), np.uint8)).rename(tmp_path / "a.png")
        refused(tmp_path / "a.png", "expected a PNG")

    @pytest.mark.parametrize("kept", [0, 10, 30, 60, 500])
    def test_cut_short(self, tmp_path: Path, kept: int) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
        path = save(tmp_path / "a.png", noise)
        path.write_bytes(path.read_bytes()[:kept])
        refused(path)

    def test_one_byte_wrong(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
        data = bytearray(path.read_bytes())
        data[2000] ^= 1
        path.write_bytes(data)
        refused(path)

    def test_a_bomb(self, tmp_path: Path) -> None:
        refused(png(tmp_path / "a.png", 40_000, 40_000, depth=8, colour=0, row=1), "50,000,000", "40000 x 40000")


def png(path: Path, width: int, height: int, *, depth: int, colour: int, row: int) -> Path:
    """A PNG of two rows of zeros, `row` bytes each, whatever its header claims."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(bytes(2 * (row + 1)))), (b"IEND", b"")
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for name, data in chunks:
        PngImagePlugin.putchunk(file, name, data)
    path.write_bytes(file.getvalue())
    return path


def npy(path: Path, shape: str, kind: str = "<f4", numbers: bytes = b"") -> Path:
    """A .npy file with any header."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + numbers)
    return path


class Boom:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


class TestArrays:
    """Plain finite numbers, two axes or three."""

    @pytest.mark.parametrize("kind", ["?", "u1", "i2", "<i8", ">u2", "<f2", ">f4", "<f4"])
    def test_what_becomes_float32(self, tmp_path: Path, kind: str) -> None:
        array = np.asfortranarray(np.array([[0, 1, 1], [1, 0, 1]], kind))
        save(tmp_path / "a.npy", array)
        heat = Heatmaps(tmp_path).read("a").heat
        assert heat.dtype == torch.float32 and heat.tolist() == [[[0, 1, 1], [1, 0, 1]]]

    def test_what_float32_cannot_hold(self, tmp_path: Path) -> None:
        save(tmp_path / "a.npy", np.array([[1, 1 + 2**-40]]))
        save(tmp_path / "b.npy", np.array([[2**24, 2**24 + 1]]))
        save(tmp_path / "c.npy", np.array([[-(2**24) - 1, -(2**24)]]))
        save(tmp_path / "d" / "x.npy", np.array([[1, 1 + 2**-40]]))
        save(tmp_path / "d" / "y.npy", np.array([[1, 2]], np.float32))
        for id in Heatmaps(tmp_path).ids:
            heat = Heatmaps(tmp_path).read(id).heat
            assert heat.dtype == torch.float64 and heat[0, 0, 0] < heat[0, 0, 1]

    @pytest.mark.parametrize(
        ("array", "parts"),
        [
            (np.zeros((2, 2), complex), ("complex128",)),
            (np.zeros((2, 2), np.longdouble), (str(np.dtype(np.longdouble)),)),
            (np.array([["a", "b"]]), ("<U1",)),
            (np.zeros((2, 2), "datetime64[s]"), ("datetime64",)),
            (np.zeros((2, 2), [("x", "f4")]), ("'x'",)),
            (np.float32(1), ("got ()",)),
            (np.zeros(4), ("got (4,)",)),
            (np.zeros((1, 1, 2, 2)), ("got (1, 1, 2, 2)",)),
            (np.zeros((0, 2)), ("not empty", "(0, 2)")),
            (np.zeros((0, 2, 2)), ("not empty", "(0, 2, 2)")),
            (np.zeros((1001, 2, 2)), ("1 to 1000 maps", "got 1001")),
            (np.zeros((7, 8, 1)), ("(7, 8, 1)", "channels")),
            (np.zeros((20, 20, 3)), ("(20, 20, 3)", "channels")),
            (np.array([[np.nan, np.nan], [np.inf, 0]]), ("2 NaN and 1 infinite of 4",)),
            (np.array([[np.nan, 0]], np.float32), ("1 NaN and 0 infinite of 2",)),
            (np.array([[-np.inf, 0]], np.float16), ("0 NaN and 1 infinite of 2",)),
        ],
        ids=lambda value: None if isinstance(value, tuple) else f"{value.dtype}{value.shape}",
    )
    @pytest.mark.parametrize("ending", [".npy", ".npz"])
    def test_what_is_refused(self, tmp_path: Path, array: Any, parts: tuple[str, ...], ending: str) -> None:
        refused(save(tmp_path / f"a{ending}", array), *parts)

    def test_small_maps_are_not_taken_for_channels(self, tmp_path: Path) -> None:
        save(tmp_path / "a.npy", np.zeros((20, 4, 4)))
        assert Heatmaps(tmp_path).read("a").heat.shape == (20, 4, 4)

    def test_a_named_file_holds_one_map(self, tmp_path: Path) -> None:
        save(tmp_path / "a" / "dog.npy", np.zeros((2, 3, 4)))
        with pytest.raises(ValueError, match=r"a/dog\.npy: expected one map, got 2"):
            Heatmaps(tmp_path).read("a")

    def test_maps_of_a_clip_have_one_size(self, tmp_path: Path) -> None:
        save(tmp_path / "a" / "cat.npy", np.zeros((3, 4)))
        save(tmp_path / "a" / "dog.npy", np.zeros((4, 3)))
        with pytest.raises(ValueError, match=r"dog\.npy: expected 3 x 4 pixels like a/cat\.npy, got 4 x 3"):
            Heatmaps(tmp_path).read("a")

    def test_a_clip_has_at_most_a_thousand_maps(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "maps.npz", "w") as archive:
            for i in range(1001):
                archive.writestr(f"a/{i}.npy", b"")
        with pytest.raises(ValueError, match="1 to 1000 maps, got 1001"):
            Heatmaps(tmp_path / "maps.npz").read("a")

    def test_a_clip_archive_with_several_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", heat=RAMP, logits=RAMP)
        refused(tmp_path / "a.npz", "expected one array, got 2 entries: heat.npy, logits.npy")


class TestStrangers:
    """Files that are broken, or meant to break."""

    @pytest.mark.parametrize("how", ["object", "pickle", "npz", "archive"])
    def test_nothing_is_unpickled(self, tmp_path: Path, how: str) -> None:
        trace, root = tmp_path / "trace", tmp_path / "maps"
        root.mkdir()
        array = np.empty((2, 2), object)
        array[:] = Boom(trace)
        path = root / ("a.npz" if how == "npz" else "a.npy")
        if how == "pickle":
            path.write_bytes(pickle.dumps(array))
        elif how == "archive":
            np.savez(tmp_path / "maps.npz", a=array)
            with pytest.raises(ValueError, match=r"maps\.npz/a\.npy: .*save plain numbers"):
                Heatmaps(tmp_path / "maps.npz").read("a")
        else:
            save(path, array)
        if how != "archive":
            refused(path, "save plain numbers")
        assert not trace.exists()
        pickle.loads(pickle.dumps(Boom(trace)))
        assert trace.exists(), "the trap works"

    @pytest.mark.parametrize("shape", ["(1, 250000001)", "(1000, 1000, 1000)", "(9" + "9" * 40 + ", 2)", "(-4, -4)"])
    def test_sizes_are_checked_before_reading(self, tmp_path: Path, shape: str) -> None:
        refused(npy(tmp_path / "a.npy", shape), "1,000,000,000 bytes", shape)

    def test_an_npz_bomb(self, tmp_path: Path) -> None:
        array = npy(tmp_path / "x", "(20000, 20000)", numbers=bytes(10**6)).read_bytes()
        with zipfile.ZipFile(tmp_path / "maps.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", array)
        with pytest.raises(ValueError, match=r"maps\.npz/a\.npy: .*1,000,000,000 bytes, got shape \(20000, 20000\)"):
            Heatmaps(tmp_path / "maps.npz").read("a")

    def test_a_header_without_end_is_not_followed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npy"
        path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 100_000)
        refused(path, "cannot be read as an array")

    def test_a_later_format(self, tmp_path: Path) -> None:
        path = npy(tmp_path / "a.npy", "(1, 1)", numbers=bytes(4))
        data = bytearray(path.read_bytes())
        data[6] = 3
        path.write_bytes(data)
        refused(path, "got 3.0")

    def test_a_long_header(self, tmp_path: Path) -> None:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n"
        numbers = np.array([1, 2], "<f4").tobytes()
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + numbers)
        assert Heatmaps(tmp_path).read("a").heat.tolist() == [[[1, 2]]]

    @pytest.mark.parametrize("kept", [0, 5, 40, 200])
    def test_an_array_cut_short(self, tmp_path: Path, kept: int) -> None:
        path = save(tmp_path / "a.npy", np.zeros((10, 10)))
        path.write_bytes(path.read_bytes()[:kept])
        refused(path)

    def test_an_array_with_another_behind_it(self, tmp_path: Path) -> None:
        with (tmp_path / "a.npy").open("wb") as file:
            np.save(file, RAMP)
            np.save(file, RAMP)
        refused(tmp_path / "a.npy", "expected one array, got more bytes")

    @pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
    def test_an_npz_with_a_wrong_byte(self, tmp_path: Path, place: float) -> None:
        path = save(tmp_path / "a.npz", np.random.default_rng(0).random((32, 32)))
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= 0xFF
        path.write_bytes(data)
        refused(path)

    def test_links_to_nowhere_and_pipes(self, tmp_path: Path) -> None:
        (tmp_path / "a.npy").symlink_to(tmp_path / "gone.npy")
        os.mkfifo(tmp_path / "b.npy")
        os.mkfifo(tmp_path / "c.png")
        maps = Heatmaps(tmp_path)
        for id in maps.ids:
            with pytest.raises(ValueError, match=rf"/{id}\.(npy|png): expected a file"):
                maps.read(id)
        with pytest.raises(ValueError, match=r"/a\.npy: expected a file"):
            maps.digest()


class TestPresence:
    """presence.csv: every class of a clip, or none."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for id, name in (("a", "cat"), ("a", "dog"), ("b", "dog"), ("n", "0"), ("n", "1")):
            save(tmp_path / id / f"{name}.npy", RAMP)
        save(tmp_path / "s.npy", RAMP)
        return tmp_path

    def write(self, root: Path, *lines: str, end: str = "\n", start: bytes = b"") -> Heatmaps:
        (root / "presence.csv").write_bytes(start + end.join((*lines, "")).encode())
        return Heatmaps(root)

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
    def test_any_line_ends(self, root: Path, end: str, start: bytes) -> None:
        maps = self.write(root, "id,class,presence", "a,dog,0.25", "a,cat,1", "", end=end, start=start)
        assert maps.problems == () and maps.read("a").presence == (1.0, 0.25)
        assert maps.read("b").presence is None and maps.read("s").presence is None

    def test_columns_in_any_order_and_names_with_commas(self, root: Path) -> None:
        save(root / "c" / "bell, church.npy", RAMP)
        maps = self.write(root, "presence,id,class", '0,c,"bell, church"')
        assert maps.problems == () and maps.read("c").presence == (0.0,)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("b,dog,1.5", "line 4: expected a presence in [0, 1], got 1.5"),
            ("b,dog,nan", "line 4: expected a presence in [0, 1], got nan"),
            ("b,dog,yes", "got 'yes'"),
            ("b,dog,", "got ''"),
            ("b,cat,1", "expected a class of b (dog), got 'cat'"),
            ("b,dog", "expected 3 cells, got 2"),
            ("b,dog,1,2", "expected 3 cells, got 4"),
            ("x,dog,1", "expected the id of a clip with maps, got 'x'"),
            ("s,dog,1", "expected a class of s (its maps have no names), got 'dog'"),
            ("n,0,1", "expected a class of n (its maps have no names), got '0'"),
        ],
    )
    def test_a_bad_row(self, root: Path, row: str, message: str) -> None:
        maps = self.write(root, "id,class,presence", "a,dog,0.25", "a,cat,1", row)
        (problem,) = maps.problems
        assert (problem.kind, problem.path) == ("index", root / "presence.csv") and message in problem.message
        assert maps.read("a").presence == (1.0, 0.25)
        assert maps.read("b").presence is None and maps.ids == ("a", "b", "n", "s")

    def test_a_row_that_comes_again(self, root: Path) -> None:
        maps = self.write(root, "id,class,presence", "b,dog,1", "b,dog,0")
        assert "line 3: b,dog is listed again" in str(maps.problems[0]) and maps.read("b").presence is None

    def test_a_class_without_presence(self, root: Path) -> None:
        maps = self.write(root, "id,class,presence", "a,dog,1")
        assert "a: expected a presence for every class, got none for cat" in str(maps.problems[0])
        assert maps.read("a").presence is None

    @pytest.mark.parametrize("header", ["a,dog,1", "id,class", "", "id,id,class,presence"])
    def test_other_columns(self, root: Path, header: str) -> None:
        maps = self.write(root, header, "b,dog,1")
        (problem,) = maps.problems
        assert "expected columns id, class, presence" in problem.message and maps.read("b").presence is None

    @pytest.mark.parametrize("data", [b"id,class,presence\nb,d\xf6g,1\n", b"id,class,presence\nb," + b"x" * 200_000])
    def test_no_csv(self, root: Path, data: bytes) -> None:
        (root / "presence.csv").write_bytes(data)
        maps = Heatmaps(root)
        assert "cannot be read as csv" in str(maps.problems[0]) and maps.read("b").presence is None


class TestDigest:
    """One name for the files that were scored."""

    def test_what_it_depends_on(self, tmp_path: Path) -> None:
        def folder(name: str, **arrays: Any) -> Path:
            for key, array in arrays.items():
                save(tmp_path / name / f"{key}.npy", array)
            return tmp_path / name

        first = Heatmaps(folder("one", a=RAMP, b=RAMP + 1)).digest()
        assert len(first) == 12 and int(first, 16) >= 0
        assert first == Heatmaps(folder("two", b=RAMP + 1, a=RAMP)).digest()
        (tmp_path / "two" / "README").write_text("no concern")
        assert first == Heatmaps(tmp_path / "two").digest()
        others = [folder("x", a=RAMP + 1, b=RAMP), folder("y", a=RAMP, c=RAMP + 1), folder("z", a=RAMP)]
        (tmp_path / "one" / "presence.csv").write_text("id,class,presence\n")
        digests = {Heatmaps(path).digest() for path in [*others, tmp_path / "one"]}
        assert len(digests | {first}) == 5

    def test_of_an_archive(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", a=RAMP)
        np.savez(tmp_path / "b.npz", a=RAMP)
        np.savez(tmp_path / "c.npz", a=RAMP + 1)
        one, same, other = (Heatmaps(tmp_path / f"{name}.npz").digest() for name in "abc")
        assert one == same != other
        inner = hashlib.sha256((tmp_path / "a.npz").read_bytes()).digest()
        assert one == hashlib.sha256(b".npz\0" + inner).hexdigest()[:12]


class TestCoverage:
    """Missing and extra ids are named, never intersected away."""

    def test_in_the_order_of_the_list(self) -> None:
        got = coverage(("c", "x", "a", "w"), iter(("a", "b", "c", "0")))
        assert got == Coverage(found=("c", "a"), missing=("x", "w"), extra=("0", "b"))
        assert got.hash == id_hash(["c", "a"]) != coverage(("a", "c"), ("a", "c")).hash

    def test_ids_wanted_twice(self) -> None:
        with pytest.raises(ValueError, match="got 2 more than once: b, c"):
            coverage(("a", "b", "b", "c", "c"), ())
