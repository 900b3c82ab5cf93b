"""The networks that `inspector train` knows, in PyTorch. (`nn.Module` is inherited from because PyTorch knows no other way.)

`unet` and `cnn` are made for a CPU: the first convolution takes steps of 4 px, so that nothing is computed at full resolution where a
multiply-add costs sixteen times as much; the U-Net gives its answer at half resolution by sub-pixel convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def block(inputs: int, outputs: int, size: int = 3, step: int = 1, *, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; the convolution keeps the size, divided by `step`."""
    pad = dilation * (size - 1) // 2 if step < 4 else (size - step) // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, step, pad, dilation=dilation, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Scores (N, 1 + classes, H/2, W/2) for pictures (N, channels, H, W); H and W are multiples of 16.

    Encoder at 1/4, 1/8 and 1/16 of the size with `width`, 2 and 4 times as many channels; the decoder adds instead of concatenating
    (half the multiply-adds). Channels are multiples of 16 because runtimes compute them in blocks of 8 or 16. About 1,400 multiply-adds
    per pixel, against 20,000 of a plain U-Net that begins with 16 channels.
    """

    DOWN = 2
    SIDE = 2
    """Of the block that is one place of `parts`."""
    MULTIPLE = 16

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        middle, deep = width * 2, width * 4
        self.quarter = nn.Sequential(block(channels, width, 8, 4), block(width, width))
        self.eighth = nn.Sequential(block(width, middle, 3, 2), block(middle, middle))
        self.sixteenth = nn.Sequential(block(middle, deep, 3, 2), block(deep, deep), block(deep, deep))
        self.rise_eighth, self.join_eighth = nn.Conv2d(deep, middle, 1), block(middle, middle)
        self.rise_quarter, self.join_quarter = nn.Conv2d(middle, width, 1), block(width, width)
        self.head = nn.Conv2d(width, 4 * (1 + classes), 1)
        with torch.no_grad():  # defects are rare: begin by saying that there is none
            self.head.weight.mul_(0.3)
            self.head.bias[:] = torch.tensor([3.0] * 4 + [0.0] * 4 * classes)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.decode(*self.encode(x))

    def parts(self, x: Tensor) -> Tensor:
        """The same scores before the shuffle, (N, (1 + classes)·4, H/4, W/4): of each class the four places of a block."""
        return self._head(*self.encode(x))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is seen at 1/4, 1/8 and 1/16 of the size."""
        quarter = self.quarter(x)
        eighth = self.eighth(quarter)
        return quarter, eighth, self.sixteenth(eighth)

    def decode(self, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        """The scores, from what is seen."""
        return functional.pixel_shuffle(self._head(quarter, eighth, sixteenth), self.SIDE)

    def _head(self, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        deep = self.rise_eighth(sixteenth)
        eighth = self.rise_quarter(self.join_eighth(eighth + functional.interpolate(deep, scale_factor=2.0, mode="nearest")))
        quarter = self.join_quarter(quarter + functional.interpolate(eighth, scale_factor=2.0, mode="nearest"))
        scores: Tensor = self.head(quarter)
        return scores


class Glance(nn.Module):
    """Scores (N, 1 + classes, H/8, W/8) for pictures (N, channels, H, W): a first look, about 100 multiply-adds per pixel.

    It has no way back to fine places: what it is for is to say where a second look is needed.
    """

    DOWN = 8
    MULTIPLE = 16

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(block(channels, width, 8, 4), block(width, width, 3, 2), block(width, width))
        self.head = nn.Conv2d(width, 1 + classes, 1)
        with torch.no_grad():
            self.head.bias[:] = torch.tensor([3.0] + [0.0] * classes)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.head(self.features(x))
        return scores


class Residual(nn.Module):
    """Two convolutions beside an identity; the second one's batch normalisation begins at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = block(width, width)
        norm = nn.BatchNorm2d(width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), norm)
        nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        return functional.relu(x + self.second(self.first(x)))


class CNN(nn.Module):
    """Scores (N, classes) for pictures (N, channels, H, W): stages at 1/4, 1/8, 1/16, their mean and maximum, one linear layer.

    Before the linear layer `drop` of the features are hidden in training.
    """

    def __init__(self, channels: int, classes: int, width: int = 32, depth: int = 1, drop: float = 0.2) -> None:
        super().__init__()
        stages: list[nn.Module] = [block(channels, width, 8, 4)]
        for stage in range(3):
            wide = width << stage
            stages += [block(wide // 2, wide, 3, 2)] if stage else []
            stages += [Residual(wide) for _ in range(depth)]
        self.features = nn.Sequential(*stages)
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(2 * (width << 2), classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        seen = self.features(x)
        pooled = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)
        scores: Tensor = self.head(self.drop(pooled))
        return scores


class Bottleneck(nn.Module):
    """The block of ResNet-50 and deeper: 1 × 1, 3 × 3, 1 × 1, and four times `width` channels out (He et al., 2015)."""

    def __init__(self, inputs: int, width: int, step: int, dilation: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, step, dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        same = step == 1 and inputs == 4 * width
        self.downsample = None if same else nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, step, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, 4·width, H/step, W/step)."""
        beside = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))
        return functional.relu(self.bn3(self.conv3(x)) + beside)


class ResNet101(nn.Module):
    """The body of ResNet-101 with output stride 16; the parameters are named as in the published weights, so that those load."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, 3)
        self.layer2 = self._stage(256, 128, 4, step=2)
        self.layer3 = self._stage(512, 256, 23, step=2)
        self.layer4 = self._stage(1024, 512, 3, dilation=2)

    @staticmethod
    def _stage(inputs: int, width: int, depth: int, step: int = 1, dilation: int = 1) -> nn.Sequential:
        first = Bottleneck(inputs, width, step, dilation)
        return nn.Sequential(first, *[Bottleneck(4 * width, width, 1, dilation) for _ in range(depth - 1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(features (N, 256, H/4, W/4), features (N, 2048, H/16, W/16))."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        early = self.layer1(x)
        return early, self.layer4(self.layer3(self.layer2(early)))


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ on ResNet-101 (Chen et al., 2018): scores (N, 1 + classes, H/4, W/4) for (N, channels, H, W) with ImageNet statistics."""

    DOWN = 4
    MULTIPLE = 16

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = ResNet101(channels)
        self.spatial = nn.ModuleList([block(2048, 256, 1)] + [block(2048, 256, 3, dilation=rate) for rate in (6, 12, 18)])
        self.whole = nn.Sequential(nn.Conv2d(2048, 256, 1), nn.ReLU(inplace=True))
        self.project = nn.Sequential(block(5 * 256, 256, 1), nn.Dropout(0.1))
        self.early = block(256, 48, 1)
        self.decode = nn.Sequential(block(256 + 48, 256), block(256, 256), nn.Conv2d(256, 1 + classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        early, late = self.body(x)
        whole = self.whole(late.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, late.shape[2], late.shape[3])
        seen = self.project(torch.cat([rate(late) for rate in self.spatial] + [whole], dim=1))
        seen = functional.interpolate(seen, scale_factor=4.0, mode="bilinear", align_corners=False)
        scores: Tensor = self.decode(torch.cat([seen, self.early(early)], dim=1))
        return scores


class Comparer(nn.Module):
    """Class scores (N, classes) and a box (N, 4), x0 y0 x1 y1 as ratios of the side, for a window (N, C, S, S): picture, reference and
    what else is known of each pixel.

    S is a multiple of 16. The difference is a third channel from the start; the last map keeps its places, because the box needs them.
    """

    def __init__(self, classes: int, side: int, width: int = 16, channels: int = 2) -> None:
        super().__init__()
        wide = width * 8
        self.features = nn.Sequential(
            block(channels + 1, width, 5, 2),
            block(width, width * 2, 3, 2),
            block(width * 2, width * 2),
            block(width * 2, width * 4, 3, 2),
            Residual(width * 4),
            block(width * 4, wide, 3, 2),
            Residual(wide),
            block(wide, width * 2, 1),
        )
        self.join = nn.Sequential(nn.Flatten(), nn.Linear(width * 2 * (side // 16) ** 2, wide), nn.ReLU(inplace=True), nn.Dropout(0.1))
        self.classes, self.box = nn.Linear(wide, classes), nn.Linear(wide, 4)
        with torch.no_grad():  # begin with a box of a third of the side in the middle
            self.box.weight.mul_(0.1)
            self.box.bias.copy_(torch.tensor([0.33, 0.33, 0.67, 0.67]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        seen = self.join(self.features(torch.cat([x, x[:, :1] - x[:, 1:2]], dim=1)))
        return self.classes(seen), self.box(seen)
