"""Backbones: strides, shapes, published sizes and torchvision's names."""

from __future__ import annotations

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.training.models.backbones import BACKBONES, build_backbone

SEEN = {  # torchvision 0.x name -> shape, written down from its published checkpoints
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_mean": (128,),
        "layer4.1.bn2.bias": (512,),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
    },
    "resnet34": {"layer2.3.conv2.weight": (128, 128, 3, 3), "layer3.5.bn1.weight": (256,)},
    "resnet50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer4.0.conv2.weight": (512, 512, 3, 3),
        "layer4.2.bn3.weight": (2048,),
    },
    "resnet101": {"layer3.22.conv3.weight": (1024, 256, 1, 1), "layer4.0.downsample.0.weight": (2048, 1024, 1, 1)},
    "mobilenetv2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.running_mean": (32,),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,),
        "features.2.conv.0.1.weight": (96,),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.2.conv.3.running_var": (24,),
        "features.17.conv.2.weight": (320, 960, 1, 1),
    },
    "mobilenetv2-tf": {
        "features.0.0.bias": (32,),
        "features.1.conv.1.bias": (16,),
        "features.17.conv.1.0.weight": (960, 1, 3, 3),
        "features.17.conv.2.bias": (320,),
    },
    "mobilenetv3-small": {
        "features.0.0.weight": (16, 3, 3, 3),
        "features.1.block.0.0.weight": (16, 1, 3, 3),
        "features.1.block.1.fc1.weight": (8, 16, 1, 1),
        "features.1.block.1.fc2.bias": (16,),
        "features.1.block.2.0.weight": (16, 16, 1, 1),
        "features.4.block.2.fc1.weight": (24, 96, 1, 1),
        "features.11.block.3.1.running_mean": (96,),
    },
    "mobilenetv3-large": {
        "features.1.block.0.0.weight": (16, 1, 3, 3),
        "features.2.block.0.0.weight": (64, 16, 1, 1),
        "features.4.block.1.0.weight": (72, 1, 5, 5),
        "features.4.block.2.fc1.weight": (24, 72, 1, 1),
        "features.11.block.2.fc1.weight": (120, 480, 1, 1),
        "features.15.block.3.0.weight": (160, 960, 1, 1),
    },
    "squeezenet1.1": {
        "features.0.weight": (64, 3, 3, 3),
        "features.3.squeeze.weight": (16, 64, 1, 1),
        "features.6.expand3x3.weight": (128, 32, 3, 3),
        "features.12.expand1x1.bias": (256,),
    },
}

# torchvision's published totals less the classifier, and for the MobileNets less the last 1x1 convolution before it.
PARAMETERS = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "mobilenetv2": 3_504_872 - 1_281_000 - (320 * 1280 + 2 * 1280),
    "mobilenetv3-large": 5_483_032 - (960 * 1280 + 1280 + 1_281_000) - (160 * 960 + 2 * 960),
    "mobilenetv3-small": 2_542_856 - (576 * 1024 + 1024 + 1_025_000) - (96 * 576 + 2 * 576),
    "squeezenet1.1": 1_235_496 - 513_000,
}
TENSORS = {"resnet18": 120, "resnet50": 318, "squeezenet1.1": 50}  # entries of the state dict without the classifier


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_forward_when_image_is_64x96_then_maps_have_the_declared_strides_and_channels(name: str) -> None:
    backbone = build_backbone(name, width=0.25).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, 64, 96))
    expected = [(2, c, 64 // s, 96 // s) for s, c in zip(backbone.strides, backbone.channels, strict=True)]
    assert [tuple(item.shape) for item in maps] == expected
    assert backbone.strides in ((8, 16, 32), (8, 16))
    assert all(bool(item.isfinite().all()) and float(item.std()) > 0 for item in maps)


@pytest.mark.parametrize("name", sorted(SEEN))
def test_state_dict_when_torchvision_family_then_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        state = build_backbone(name).state_dict()
    assert {key: tuple(state[key].shape) for key in SEEN[name]} == SEEN[name]
    if name in TENSORS:
        assert len(state) == TENSORS[name]


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameters_when_width_is_one_then_they_are_the_published_number(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_stages_when_listed_then_every_tensor_belongs_to_exactly_one(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    for key in backbone.state_dict():
        assert sum(key.startswith(stage + ".") for stage in backbone.stages) == 1, key
    assert not any(key.startswith(backbone.classifier or "\0") for key in backbone.state_dict())


def test_width_when_halved_then_channels_halve_to_multiples_of_eight() -> None:
    assert build_backbone("resnet18", 0.5).channels == (64, 128, 256)
    assert all(count % 8 == 0 for count in build_backbone("csp-tiny", 0.3).channels)


def test_tensorflow_form_when_an_image_shifts_then_stride_two_pads_right_and_bottom_only() -> None:
    stem = build_backbone("mobilenetv2-tf", 0.25).features[0][0]  # type: ignore[index]
    torch.nn.init.ones_(stem.weight)
    image = torch.zeros(1, 3, 8, 8)
    image[..., 1, 1] = 1.0
    response = stem(image)[0, 0]
    assert response[0, 0] == 3.0
    assert response.sum() == 3.0  # padded at the left, the windows 0 and 1 would both see pixel 1
    image = torch.zeros(1, 3, 8, 8)
    image[..., 7, 7] = 1.0
    response = stem(image)[0, 0]
    assert response[3, 3] == 3.0
    assert response.sum() == 3.0


def test_squeezenet_when_padded_by_one_then_maps_agree_with_the_published_network_inside() -> None:
    backbone = build_backbone("squeezenet1.1", 0.25).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = backbone(images)[0]
        features = images
        for layer in list(backbone.features)[:8]:  # type: ignore[arg-type]
            features = layer(features)
    assert features.shape[-1] == 7  # the published network's ragged size
    torch.testing.assert_close(ours[..., :4, :4], features[..., :4, :4])


@pytest.mark.parametrize(("name", "width"), [("resnet", 1.0), ("ResNet18", 1.0), ("resnet18", 0.0), ("resnet18", 9.0)])
def test_build_when_name_or_width_is_impossible_then_the_error_says_what_is_possible(name: str, width: float) -> None:
    with pytest.raises(RecipeError, match=r"csp-tiny, cspdarknet53, mobilenetv2|above 0 and at most 4"):
        build_backbone(name, width)
