from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from m2vsl.data.layout import read_layout

Make = Callable[..., Path]


def test_folder_without_index(make_folder: Make) -> None:
    layout = read_layout(make_folder())
    assert layout.classes == ("bell", "cat", "drum")
    assert len(layout.photos) == len(layout.sounds) == 30 and not layout.problems
    assert layout.mask(layout.photos[0]) == layout.root / "masks/bell/bell_0.png"


def test_folds_are_dealt_evenly_and_do_not_depend_on_the_machine(make_folder: Make) -> None:
    photos = read_layout(make_folder()).photos
    assert Counter((p.label, p.fold) for p in photos) == {(c, f): 2 for c in range(3) for f in range(1, 6)}
    assert [p.fold for p in photos[:10]] == [4, 5, 3, 2, 4, 1, 2, 3, 5, 1]


def test_index_chooses_files_and_folds(make_folder: Make) -> None:
    root = make_folder()
    (root / "image_index.csv").write_bytes(b"\xef\xbb\xbfclass,file,fold\r\ncat,cat_3.png,2\r\nbell,bell_1.png,4\r\n")
    photos = read_layout(root).photos
    assert [(p.name, p.label, p.fold) for p in photos] == [("cat/cat_3.png", 1, 2), ("bell/bell_1.png", 0, 4)]


def test_index_without_folds(make_folder: Make) -> None:
    root = make_folder()
    (root / "image_index.csv").write_text("class,file\n" + "".join(f"cat,cat_{i}.png\n" for i in range(5)))
    assert sorted(p.fold for p in read_layout(root).photos) == [1, 2, 3, 4, 5]


def test_order_of_classes_csv(make_folder: Make) -> None:
    root = make_folder()
    (root / "classes.csv").write_text("id,class\n2,bell\n0,drum\n1,cat\n")
    layout = read_layout(root)
    assert layout.classes == ("drum", "cat", "bell")
    assert {p.name.split("/")[0] for p in layout.photos if p.label == 0} == {"drum"}


def test_folder_without_classes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "audio").mkdir()
    (problem,) = read_layout(tmp_path).problems
    assert problem.kind == "folder" and "at least one class" in problem.message


def test_index_in_another_encoding_names_what_it_cannot_find(make_folder: Make) -> None:
    root = make_folder()
    (root / "image_index.csv").write_bytes("class,file\ncat,Kätzchen.png\ncat,cat_1.png\n".encode("latin-1"))
    problems = [p for p in read_layout(root).problems if p.kind == "index"]
    assert len(problems) == 1 and problems[0].message.startswith("line 2: no file images/cat/K")


def test_photosound(photosound: Path) -> None:
    layout = read_layout(photosound)
    assert (len(layout.classes), len(layout.photos), len(layout.sounds)) == (12, 554, 543)
    assert layout.classes[0] == "dog" and not layout.problems
    assert all(layout.mask(photo).is_file() for photo in layout.photos)
