"""Small networks of every kind, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from edgekd._recipe import InputConfig
from edgekd.training.anomaly import AnomalyNetwork, MirrorStudent, PlainStudent, Pyramid
from edgekd.training.anomaly.embedding import Embedding
from edgekd.training.anomaly.fusion import AddFusion, AttentionalFusion
from edgekd.training.models.backbones import build_backbone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INPUT = InputConfig(height=64, width=64)
SIZE = (72, 60)  # width, height: not square, so that stretching matters


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def textures(count: int, seed: int = 0) -> torch.Tensor:
    """Return stripes of random phase, `(count, 3, 64, 64)`."""
    phase = torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) * 6.28
    grid = torch.arange(64.0).view(1, 1, 1, -1).expand(count, 3, 64, 64)
    return torch.sin(grid * 0.8 + phase)


def pyramid(name: str = "resnet18", width: float = 0.25) -> Pyramid:
    """Return a random teacher whose BatchNorm knows the textures: else its features are nearly constant."""
    backbone = build_backbone(name, width).train()
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over batches
    with torch.no_grad():
        backbone(textures(8, 99))
    return Pyramid(name, backbone, INPUT)


@pytest.fixture
def network() -> Callable[..., AnomalyNetwork]:
    """Return a function that makes a network of quarter-width teachers."""

    def make(target: str = "single", *, student: str = "plain", fusion: str = "iaff") -> AnomalyNetwork:
        teachers = [pyramid()] if target == "single" else [pyramid(), pyramid("mobilenetv2", 0.5)]
        channels = teachers[0].channels
        embedding = Embedding(channels)
        if student == "mirror":
            back: torch.nn.Module = MirrorStudent(teachers[0], embedding.outputs)
        else:
            targets = [each.channels for each in teachers] if target == "both_raw" else [channels]
            back = PlainStudent(embedding.outputs, targets, (16, 24, 32))
        kinds = {"iaff": AttentionalFusion, "add": lambda _: AddFusion()}
        joined = None if target == "single" else kinds[fusion](channels)
        return AnomalyNetwork(teachers, joined, embedding, back, target)

    return make


def picture(seed: int, defect: bool = False) -> tuple[Image.Image, Image.Image]:
    rng = np.random.default_rng(seed)
    columns = np.arange(SIZE[0]) + rng.uniform(0, 6)
    grey = 128 + 60 * np.sin(columns)[None, :, None] + rng.normal(0, 4, (SIZE[1], SIZE[0], 3))
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    if defect:
        y, x = rng.integers(10, 30, 2)
        grey[y : y + 14, x : x + 14] = rng.uniform(0, 255, 3)
        mask[y : y + 14, x : x + 14] = 255
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)), Image.fromarray(mask)


@pytest.fixture(scope="session")
def category(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MVTec-style category: 24 normal training images, 4 good and 5 spoilt test images, one without a mask."""
    root = tmp_path_factory.mktemp("sets") / "stripes"
    for folder, count, defect in (("train/good", 24, False), ("test/good", 4, False), ("test/spot", 5, True)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            image, mask = picture(1000 * defect + 100 * folder.startswith("test") + number, defect)
            image.save(root / folder / f"{number:03d}.png")
            if defect and number:
                (root / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
                mask.save(root / "ground_truth" / "spot" / f"{number:03d}_mask.png")
    return root
