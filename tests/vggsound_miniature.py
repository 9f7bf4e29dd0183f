"""The benchmarks in small: published ids and rows in the published layout; pictures and sounds are made here.

A still is dark, 64 x 36, and bright inside of its boxes; a sound is a tone of its own. The lists are rows of the
published ones, line ends included.
"""

from __future__ import annotations

import json
import lzma
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

RATE = 8000
BOXES = [  # of vggss.json: one corrupt (and a good one beside it), one empty, one with a box of no size
    ("zpWuikVorYg_000032", "elk bugling", [[0.403125, 0.253125, 0.6, 0.75]]),
    ("gEvCUcZ6w88_000030", "female speech, woman speaking", [[0.45, 0.190625, 0.584375, 0.47812499999999997]]),
    ("JIemsK_0lXc_000364", "playing bass drum", [[0.03125, 0.3625, 0.36875, 0.9875]]),
    (
        "UyCw7pCgYg8_000055",
        "tap dancing",
        [
            [0.503125, 0.403125, 0.6468750000000001, 0.6625000000000001],
            [0.253125, 0.065625, 0.375, 0.259375],
            [0.00625, 0.015625, 0.00625, 0.015625],
        ],
    ),
    ("FbwgXeLSRTE_000002", "wood thrush calling", [[0.325, 0.115625, 0.7093750000000001, 0.890625]]),
    ("M1P1xla8rg0_000000", "playing tambourine", [[0.26875, 1.0, 0.753125, 1.0]]),
    (
        "Db6Hjt0x28k_000056",
        "playing timbales",
        [[0.384375, 0.859375, 0.696875, -2.8823037615171176e16], [0.05, 0.35625, 0.753125, 0.98125]],
    ),
    (
        "Rtg1SUrxOPY_000130",
        "people coughing",
        [[0.61875, 0.171875, 0.76875, 0.43125], [0.0875, 0.15, 0.26249999999999996, 0.44062500000000004]],
    ),
    ("meoZvdQ2qBs_000162", "missile launch", [[0.171875, 0.265625, 0.7125, 0.796875]]),
    ("pf00DOALuZ0_000293", "people eating crisps", [[0.090625, 0.0, 0.796875, 0.815625]]),
    ("r6bYfNqe_iQ_000435", "train whistling", [[0.0, 0.271875, 0.634375, 0.95]]),
    ("nhAiQyirHe0_000127", "wood thrush calling", [[0.209375, 0.19375, 0.821875, 0.8375]]),
    ("BR5NGmkK8w4_000056", "police car (siren)", [[0.125, 0.303125, 0.809375, 0.75]]),
    ("FxkZsO4Kd78_000022", "black capped chickadee calling", [[0.125, 0.371875, 0.4625, 0.9281250000000001]]),
]
TESTED = [id for id, _, _ in BOXES]
SINGLE = [f"{id},{words.replace(',', '').replace(' ', '_')}" for id, words, _ in BOXES]
NAMES = sorted({row.split(",")[1] for row in SINGLE})
DUET = [  # the last pairs clips of one class
    "zpWuikVorYg_000032,elk_bugling,Rtg1SUrxOPY_000130,people_coughing",
    "gEvCUcZ6w88_000030,female_speech_woman_speaking,meoZvdQ2qBs_000162,missile_launch",
    "JIemsK_0lXc_000364,playing_bass_drum,pf00DOALuZ0_000293,people_eating_crisps",
    "UyCw7pCgYg8_000055,tap_dancing,r6bYfNqe_iQ_000435,train_whistling",
    "M1P1xla8rg0_000000,playing_tambourine,BR5NGmkK8w4_000056,police_car_(siren)",
    "Db6Hjt0x28k_000056,playing_timbales,FxkZsO4Kd78_000022,black_capped_chickadee_calling",
    "FbwgXeLSRTE_000002,wood_thrush_calling,nhAiQyirHe0_000127,wood_thrush_calling",
]
TRAIN = [
    "---g-f_I2yQ_000001",
    "--0PQM4-hqg_000030",
    "--5OkAjCI7g_000040",
    "--96EN9NUQM_000242",
    "--9O4XZOge4_000030",
    "--CC5pH97q4_000033",
    "--CudrykwoE_000078",
    "--DTR0_mIGI_000011",
    "--DTR0_mIGI_000032",
    "--FenyW2i_4_000000",
]
LEAKED = ["Db6Hjt0x28k_000056", "Rtg1SUrxOPY_000130"]  # of the list of 144,000, and tested
INSTRUMENTS = [
    "-1qyr-IzqKY_000060,accordion",
    "-1P74acOb3c_000050,banjo",
    "-2Z9JGG0Dnw_000070,saxophone",
    "-0HxntVOLW4_000508,steel_guitar",
    "-0mLdC1zRx8_000016,cornet",
    "-4yCSY_5Zns_000030,xylophone",
    "--q1RQWxQog_000093,erhu",  # in training alone
    "-NA-UnuK1OY_000149,erhu",
]
STILLS = ["sample0000,accordion", "sample0001,banjo", "sample0002,saxophone", "sample0190,steel_guitar"]
STILLS += ["sample0132,cornet", "sample0134,xylophone"]
MULTI = [
    "sample0000,accordion,sample0190,steel_guitar",
    "sample0001,banjo,sample0132,cornet",
    "sample0002,saxophone,sample0134,xylophone",
]
FLICKR = ["10000130166,202", "10007936344,0", "10008553263,309"]
FLICKR_TRAIN = ["10004743663", *(f"1001067514{i}" for i in range(6))]
XML = """<annotation>{}</annotation>"""


def write_list(path: Path, rows: Iterable[str], end: str = "\n") -> Path:
    """A list; compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(row + end for row in rows).encode()
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def add_clip(root: Path, id: str, boxes: Sequence[Sequence[float]] = ((0.25, 0.25, 0.75, 0.75),)) -> None:
    """A still and a sound of a second, whose pitch the id decides."""
    pixels = np.full((36, 64, 3), 20, np.uint8)
    for left, top, right, bottom in np.clip(boxes, 0, 1):
        pixels[round(36 * top) : round(36 * bottom), round(64 * left) : round(64 * right)] = 230
    for kind in ("frames", "audio"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / "frames" / f"{id}.jpg", quality=95)
    tone = 0.4 * np.sin(2 * np.pi * (200 + sum(id.encode()) % 97 * 10) * np.arange(RATE) / RATE)
    soundfile.write(root / "audio" / f"{id}.wav", tone, RATE)


def vggsound(root: Path) -> Path:
    """VGG-SS and Duet, with a list of 12 training clips, two of them tested."""
    lists = root / "metadata"
    write_list(lists / "vggsound_single_test.csv", SINGLE, "\r\n")
    write_list(lists / "vggsound_duet_test.csv", DUET, "\r\n")
    write_list(lists / "vggss_heard_test.csv", TESTED[:3])
    write_list(lists / "vggss_144k.txt.xz", [*TRAIN[:5], *LEAKED, *TRAIN[5:]])
    entries = [{"file": id, "class": words, "bbox": boxes} for id, words, boxes in BOXES]
    (lists / "vggss.json").write_text(json.dumps(entries))
    for id, _, boxes in BOXES:
        add_clip(root, id, boxes)
    for id in TRAIN:
        add_clip(root, id)
    return root


def instruments(root: Path) -> Path:
    """VGG-Instruments: masks are pickled arrays of booleans, 18 x 32, of the middle of the frame."""
    lists = root / "metadata"
    write_list(lists / "vgginstruments_test.csv", STILLS, "\r\n")
    write_list(lists / "vgginstruments_multi_test.csv", MULTI, "\r\n")
    write_list(lists / "vgginstruments_train.txt", [*INSTRUMENTS, "-0UuUoXQUoI_000107,double_bass"])
    write_list(lists / "vggss_test.csv", ["-0UuUoXQUoI_000107", *TESTED], "\r\n")
    (root / "anno").mkdir(parents=True)
    mask = np.zeros((18, 32), bool)
    mask[4:14, 8:24] = True
    for protocol, row in enumerate(STILLS):
        (root / "anno" / f"{row.split(',')[0]}.pkl").write_bytes(pickle.dumps(mask, protocol))
    for row in [*INSTRUMENTS, *STILLS, "-0UuUoXQUoI_000107"]:
        add_clip(root, row.split(",")[0])
    return root


def flickr(root: Path) -> Path:
    """Flickr-SoundNet: of each picture three annotators drew a box, on a grid of 256."""
    write_list(root / "metadata" / "flickr_test.csv", FLICKR, "\r\n")
    write_list(root / "metadata" / "flickr_144k.txt", [*FLICKR_TRAIN, "10000130166"])
    for row in [*FLICKR, *FLICKR_TRAIN]:
        add_clip(root, row.split(",")[0])
    for row in FLICKR:
        votes(root / "anno" / f"{row.split(',')[0]}.xml", [(64, 64, 192, 192), (64, 64, 128, 192), (0, 0, 32, 32)])
    return root


def votes(path: Path, boxes: Iterable[Sequence[object]]) -> Path:
    """An annotation: one ``bbox`` per annotator, four numbers after a name."""
    tags = ("name", "xmin", "ymin", "xmax", "ymax")
    told = ["".join(f"<{t}>{v}</{t}>" for t, v in zip(tags, ("box", *box), strict=False)) for box in boxes]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(XML.format("".join(f"<annotator><bbox>{one}</bbox></annotator>" for one in told)))
    return path


MAKE = {"vggsound": vggsound, "instruments": instruments, "flickr": flickr}
