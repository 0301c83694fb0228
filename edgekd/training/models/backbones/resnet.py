"""ResNet-18/34/50/101 (He et al., CVPR 2016) with torchvision's state-dict names; stride in the 3x3 layer (v1.5)."""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import init_convs, scaled
from .backbone import Backbone

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18/34)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, planes, H / stride, W / stride)`."""
        identity = features if self.downsample is None else self.downsample(features)
        out = self.relu(self.bn1(self.conv1(features)))
        result: Tensor = self.relu(self.bn2(self.conv2(out)) + identity)
        return result


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50/101)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, 4 planes, H / stride, W / stride)`."""
        identity = features if self.downsample is None else self.downsample(features)
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.relu(self.bn2(self.conv2(out)))
        result: Tensor = self.relu(self.bn3(self.conv3(out)) + identity)
        return result


class ResNet(Backbone):
    """ResNet without its classifier; outputs of layer2, layer3, layer4 (strides 8, 16, 32)."""

    classifier = ("fc",)

    def __init__(self, depth: int, width: float = 1.0) -> None:
        super().__init__()
        block: type[BasicBlock | BottleneckBlock] = BasicBlock if depth < 50 else BottleneckBlock
        planes = [scaled(channels, width) for channels in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(3, planes[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = planes[0]
        for index, repeats in enumerate(_BLOCKS[depth]):
            layers = []
            for position in range(repeats):
                stride = 2 if index > 0 and position == 0 else 1
                layers.append(block(inputs, planes[index], stride))
                inputs = planes[index] * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*layers))
        self.strides = (8, 16, 32)
        self.channels = tuple(size * block.expansion for size in planes[1:])
        self.stages = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
        init_convs(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of layer2, layer3 and layer4."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.get_submodule("layer1")(features)
        outputs = []
        for name in ("layer2", "layer3", "layer4"):
            features = self.get_submodule(name)(features)
            outputs.append(features)
        return outputs
