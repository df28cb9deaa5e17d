"""Feature extractors: ResNet-18/34/50 (He et al., CVPR 2016) and MSPN (Li et al., 2019).

ResNet parameters are named as in torchvision and timm, MSPN parameters as in MMPose and the official release, so their
files load (pipeline/weights/backbones.py). A new backbone is a ``Backbone``, an entry of ``BACKBONES`` at the end of
this file, and its name in ``das.config.BACKBONE_NAMES``: configurations check names without importing torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Backbone(nn.Module, ABC):
    """Image to feature maps at strides 4, 8, 16 and 32.

    Attributes:
        channels: of the four maps, finest first; the pyramid is built from the last three.
    """

    channels: tuple[int, ...]

    @abstractmethod
    def forward(self, images: Tensor, stride4: bool = False) -> list[Tensor]:
        """(B, 3, H, W) -> maps at strides 8, 16, 32, finest first; with ``stride4`` that one before them."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a skip."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h / stride, w / stride)."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + skip, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions around a skip."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4 width, h / stride, w / stride)."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + skip, inplace=True)


class Layer(nn.Sequential):
    """Residual blocks of one resolution.

    Attributes:
        recompute: keep only the input for the backward pass, and compute the blocks again there.
    """

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h / stride, w / stride)."""
        if not (self.recompute and torch.is_grad_enabled()):
            return super().forward(x)
        found = checkpoint(super().forward, x, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts)
        assert isinstance(found, Tensor)
        return found

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._statistics_kept()

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """The second pass over the same images leaves running statistics as the first made them."""
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, batches) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, batches


def recompute_layers(backbone: nn.Module) -> None:
    """Makes every residual layer of a backbone compute its blocks again in the backward pass."""
    for layer in backbone.modules():
        if isinstance(layer, Layer):
            layer.recompute = True


def _layer(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    width: int,
    blocks: int,
    stride: int,
    skip_names: tuple[str, str],
) -> Layer:
    """``blocks`` residual blocks; the first has the stride and, where shapes change, a projected skip."""
    out_channels = width * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        parts = zip(skip_names, (convolution, nn.BatchNorm2d(out_channels)), strict=True)
        downsample = nn.Sequential(OrderedDict[str, nn.Module](parts))
    first = block(in_channels, width, stride, downsample)
    return Layer(first, *(block(out_channels, width, 1, None) for _ in range(blocks - 1)))


def init_convolutions(module: nn.Module) -> None:
    """Kaiming for every convolution; batch norms keep torch's ones and zeros."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class ResNet(Backbone):
    """ResNet without its classifier."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], counts: tuple[int, int, int, int], width: int = 64):
        """``counts`` are the blocks of each of the four stages, ``width`` the channels of the first (64: published)."""
        super().__init__()
        self.channels = tuple(width * block.expansion * 2**i for i in range(4))
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        names = ("0", "1")
        self.layer1 = _layer(block, width, width, counts[0], 1, names)
        self.layer2 = _layer(block, self.channels[0], width * 2, counts[1], 2, names)
        self.layer3 = _layer(block, self.channels[1], width * 4, counts[2], 2, names)
        self.layer4 = _layer(block, self.channels[2], width * 8, counts[3], 2, names)
        init_convolutions(self)

    def forward(self, images: Tensor, stride4: bool = False) -> list[Tensor]:
        """(B, 3, H, W) -> maps at strides 8, 16, 32, finest first; with ``stride4`` that one before them."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps if stride4 else maps[1:]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h / stride, w / stride)."""
        return self.bn(self.conv(x))


class MSPNDown(nn.Module):
    """The ResNet-50 body of one stage; the skips of the stage before are added to the output of each layer."""

    def __init__(self, width: int):
        super().__init__()
        names, channels = ("conv", "bn"), [width * 4 * 2**i for i in range(4)]
        self.layer1 = _layer(Bottleneck, width, width, 3, 1, names)
        self.layer2 = _layer(Bottleneck, channels[0], width * 2, 4, 2, names)
        self.layer3 = _layer(Bottleneck, channels[1], width * 4, 6, 2, names)
        self.layer4 = _layer(Bottleneck, channels[2], width * 8, 3, 2, names)

    def forward(self, x: Tensor, skips: list[Tensor] | None) -> list[Tensor]:
        """(B, width, h, w) at stride 4 and what to add, finest first -> maps at strides 4, 8, 16, 32."""
        maps = []
        for i, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            x = layer(x)
            if skips is not None:
                x = x + skips[i]
            maps.append(x)
        return maps


class MSPNUpUnit(nn.Module):
    """One step of the up path: adds a coarser result to a lateral map; may feed the next stage."""

    def __init__(self, in_channels: int, width: int, coarsest: bool, finest: bool, last_stage: bool):
        super().__init__()
        channels = width * 4
        self.in_skip = ConvNorm(in_channels, channels)
        self.up_conv = None if coarsest else ConvNorm(channels, channels)
        self.out_skip1 = None if last_stage else ConvNorm(in_channels, in_channels)
        self.out_skip2 = None if last_stage else ConvNorm(channels, in_channels)
        self.cross_conv = ConvNorm(channels, width) if finest and not last_stage else None

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        """Lateral (B, C, h, w) and the coarser result (B, 4 width, h / 2, w / 2) -> (B, 4 width, h, w)."""
        out = self.in_skip(x)
        if self.up_conv is not None:
            assert coarser is not None
            # The release aligns corners here (its pyramid does not).
            out = out + self.up_conv(F.interpolate(coarser, x.shape[2:], mode="bilinear", align_corners=True))
        return F.relu(out, inplace=True)

    def skip(self, x: Tensor, out: Tensor) -> Tensor:
        """What the next stage adds to its map of this size, shaped like ``x``."""
        assert self.out_skip1 is not None and self.out_skip2 is not None
        return F.relu(self.out_skip1(x), inplace=True) + F.relu(self.out_skip2(out), inplace=True)


class MSPNUp(nn.Module):
    """The up path of one stage, coarse (up1, stride 32) to fine (up4, stride 4)."""

    def __init__(self, width: int, last_stage: bool):
        super().__init__()
        self.up1 = MSPNUpUnit(width * 32, width, True, False, last_stage)
        self.up2 = MSPNUpUnit(width * 16, width, False, False, last_stage)
        self.up3 = MSPNUpUnit(width * 8, width, False, False, last_stage)
        self.up4 = MSPNUpUnit(width * 4, width, False, True, last_stage)

    def forward(self, down: list[Tensor], stride4: bool) -> list[Tensor]:
        """Down maps -> up maps (B, 4 width, h, w) at strides (4,) 8, 16, 32; both finest first."""
        out32 = self.up1(down[3], None)
        out16 = self.up2(down[2], out32)
        out8 = self.up3(down[1], out16)
        out4 = [self.up4(down[0], out8)] if stride4 else []
        return [*out4, out8, out16, out32]

    def to_next_stage(self, down: list[Tensor], up: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The next stage's input (B, width, h, w) at stride 4, and what it adds to its maps, finest first."""
        units = (self.up4, self.up3, self.up2, self.up1)
        skips = [unit.skip(x, out) for unit, x, out in zip(units, down, up, strict=True)]
        assert self.up4.cross_conv is not None
        return F.relu(self.up4.cross_conv(up[0]), inplace=True), skips


class MSPNStage(nn.Module):
    """One hourglass: a ResNet-50 down, four units up."""

    def __init__(self, width: int, last_stage: bool):
        super().__init__()
        self.downsample = MSPNDown(width)
        self.upsample = MSPNUp(width, last_stage)


class MSPNStem(nn.Module):
    """7x7 convolution and max-pool, to stride 4."""

    def __init__(self, width: int):
        super().__init__()
        self.top = nn.Sequential(ConvNorm(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H / 4, W / 4)."""
        return self.top(images)


class MSPN(Backbone):
    """Multi-stage pose network of 1 to 4 stages; only the last stage's up path is read."""

    def __init__(self, stages: int, width: int = 64):
        super().__init__()
        self.channels = (width * 4,) * 4
        self.top = MSPNStem(width)
        self.multi_stage_mspn = nn.ModuleList(MSPNStage(width, i == stages - 1) for i in range(stages))
        init_convolutions(self)
        # Only the stride 4 map needs it, which DAS does not use. DDP would wait for gradients that it never gets.
        self.stages()[-1].upsample.up4.requires_grad_(False)

    def stages(self) -> list[MSPNStage]:
        """In the order of computation."""
        return [stage for stage in self.multi_stage_mspn if isinstance(stage, MSPNStage)]

    def forward(self, images: Tensor, stride4: bool = False) -> list[Tensor]:
        """(B, 3, H, W) -> maps at strides 8, 16, 32, finest first; with ``stride4`` that one before them."""
        x, skips = self.top(images), None
        *inner, last = self.stages()
        for stage in inner:
            down = stage.downsample(x, skips)
            up = stage.upsample(down, stride4=True)
            x, skips = stage.upsample.to_next_stage(down, up)
        return last.upsample(last.downsample(x, skips), stride4)


BACKBONES: dict[str, Callable[[int, int], Backbone]] = {
    "resnet18": lambda width, _: ResNet(BasicBlock, (2, 2, 2, 2), width),
    "resnet34": lambda width, _: ResNet(BasicBlock, (3, 4, 6, 3), width),
    "resnet50": lambda width, _: ResNet(Bottleneck, (3, 4, 6, 3), width),
    "mspn": lambda width, stages: MSPN(stages, width),
}
"""Every backbone by its name in ``DASConfig.backbone``: from (channels of its first stage, number of MSPN stages) to a
module with fresh weights."""
