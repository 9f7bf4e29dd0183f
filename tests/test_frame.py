from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m2vsl import frame
from m2vsl.frame import FrameConfig


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(width: int = 90, height: int = 60) -> tuple[Image.Image, Image.Image]:
    """A blue picture with a white box, and the mask of the box."""
    pixels = np.full((height, width, 3), (0, 0, 200), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    box = slice(height // 3, height * 5 // 6), slice(width // 9, width * 4 // 9)
    pixels[box], mask[box] = 255, 255
    return Image.fromarray(pixels), Image.fromarray(mask)


def agreement(image: Image.Image, mask: Image.Image) -> float:
    """IoU of the white box seen with its mask."""
    seen, told = np.asarray(image)[..., 0] > 127, np.asarray(mask) > 0
    return (seen & told).sum() / max((seen | told).sum(), 1)


def test_load_gives_rgb(tmp_path: Path) -> None:
    Image.new("L", (8, 6), 40).save(tmp_path / "a.png")
    image = frame.load(tmp_path / "a.png")
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (8, 6), (40, 40, 40))


def test_load_turns_as_the_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (80, 60)).save(tmp_path / "a.jpg", exif=exif)
    assert frame.load(tmp_path / "a.jpg").size == (60, 80)


def test_truncated_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    Image.effect_noise((200, 200), 80).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"half\.jpg.*truncated"):
        frame.load(path)


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg.*cannot be decoded"):
        frame.load(tmp_path / "a.jpg")


def test_missing_files_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"picture file not found: no\.jpg"):
        frame.load(Path("no.jpg"))
    with pytest.raises(FileNotFoundError, match=r"mask file not found: no\.png"):
        frame.load_mask(Path("no.png"))


def _palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette([0, 0, 0, 128, 0, 0])  # as PASCAL VOC
    return image


@pytest.mark.parametrize(
    "draw",
    [
        lambda box: Image.fromarray(box * 255),
        lambda box: Image.fromarray(box),  # 0 and 1
        lambda box: Image.fromarray(box * 255).convert("1"),
        lambda box: Image.fromarray(np.repeat(box[..., None] * 255, 3, 2)),
        lambda box: Image.fromarray(box.astype(np.uint16)),
        _palette,
    ],
    ids=["grey", "ones", "bilevel", "rgb", "16 bit", "palette"],
)
def test_masks_of_every_kind_read_alike(tmp_path: Path, draw) -> None:
    box = np.zeros((6, 8), np.uint8)
    box[1:4, 2:7] = 1
    draw(box).save(tmp_path / "m.png")
    mask = frame.load_mask(tmp_path / "m.png")
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), box * 255)


def test_mask_is_brought_to_a_size_by_nearest_neighbour(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [0, 0]], np.uint8)).save(tmp_path / "m.png")
    mask = np.asarray(frame.load_mask(tmp_path / "m.png", (6, 4)))
    expected = np.zeros((4, 6))
    expected[:2, 3:] = 255
    np.testing.assert_array_equal(mask, expected)


def test_is_coloured(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 255, 255)).save(tmp_path / "grey.png")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    assert not frame.is_coloured(tmp_path / "grey.png")
    assert frame.is_coloured(tmp_path / "red.png")


@pytest.mark.parametrize(
    ("size", "shorter", "expected"),
    [((300, 200), 246, (369, 246)), ((200, 300), 246, (246, 369)), ((50, 50), 246, (246, 246))],
)
def test_shrink_as_torchvision_resize(size: tuple[int, int], shorter: int, expected: tuple[int, int]) -> None:
    image, mask = frame.shrink(Image.new("RGB", size), Image.new("L", size), FrameConfig(224))
    assert image.size == mask.size == expected and min(expected) == shorter


def test_squash() -> None:
    image, mask = frame.squash(*scene(), FrameConfig(64))
    assert image.size == mask.size == (64, 64)
    assert agreement(image, mask) > 0.9


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (300, 300)])
def test_picture_and_mask_move_together(size: tuple[int, int]) -> None:
    pair, chance = scene(*size), generator()
    views = [frame.augment(*pair, FrameConfig(64), chance) for _ in range(40)]
    assert {v[0].size for v in views} == {(64, 64)} == {v[1].size for v in views}
    shown = [view for view in views if np.asarray(view[1]).sum() > 255 * 100]
    assert len(shown) > 20
    assert min(agreement(*view) for view in shown) > 0.75
    assert len({view[0].tobytes() for view in views}) > 20


def test_flip_share() -> None:
    pair = scene(60, 60)  # the box is on the left
    config, chance = FrameConfig(60, margin=1.0), generator()
    left = sum(np.asarray(frame.augment(*pair, config, chance)[1])[:, :30].sum() > 255 * 300 for _ in range(400))
    assert 150 < left < 250
    kept = frame.augment(*pair, FrameConfig(60, margin=1.0, flip=0), chance)
    assert kept[0].tobytes() == pair[0].tobytes()


def test_augment_of_a_shrunk_picture_is_augment_of_the_picture() -> None:
    config = FrameConfig(48)
    whole = frame.augment(*scene(), config, generator(5))
    cached = frame.augment(*frame.shrink(*scene(), config), config, generator(5))
    assert [p.tobytes() for p in whole] == [p.tobytes() for p in cached]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"picture's size \(90, 60\), got \(30, 30\)"):
        frame.squash(scene()[0], Image.new("L", (30, 30)), FrameConfig(64))


def test_bad_config_is_refused() -> None:
    with pytest.raises(ValueError, match="margin >= 1"):
        FrameConfig(margin=0.9)


def test_tensor_is_normalised_and_shown_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = frame.to_tensor(Image.fromarray(pixels))
    expected = (pixels / 255 - np.array(frame.MEAN)) / np.array(frame.STD)
    assert tensor.shape == (3, 5, 7) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    np.testing.assert_allclose(tensor, expected.transpose(2, 0, 1), atol=1e-5)
    np.testing.assert_allclose(frame.to_display(tensor), pixels / 255, atol=1e-6)


def test_grey_is_the_zero_of_normalised_pictures() -> None:
    assert frame.to_tensor(Image.new("RGB", (2, 2), frame.GREY)).abs().max() < 0.01


def test_mask_tensor() -> None:
    mask = frame.mask_tensor(scene()[1])
    assert mask.shape == (60, 90) and mask.dtype == torch.float32 and mask.sum() == 30 * 30
