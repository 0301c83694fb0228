"""A data set of a dozen pictures and a recipe that trains on it in a second."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgekd._recipe import AugmentConfig, DataConfig, DistillConfig, InputConfig, ModelConfig, Recipe, TrainConfig
from edgekd._train import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def write_scenes(folder: Path, split: str, count: int, seed: int) -> Path:
    """Write pictures of red and blue rectangles on grey, 80x60 px, as COCO JSON, and return its path."""
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        picture = rng.integers(90, 130, (60, 80, 3), dtype=np.uint8)
        for _ in range(int(rng.integers(1, 4))):
            label = int(rng.integers(0, 2))
            width, height = (int(side) for side in rng.integers(12, 30, 2))
            left, top = int(rng.integers(0, 80 - width)), int(rng.integers(0, 60 - height))
            picture[top : top + height, left : left + width] = list(COLOURS.values())[label]
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0}
            annotations.append({**row, "bbox": [left, top, width, height], "area": width * height})
        name = f"{number:03d}.png"
        Image.fromarray(picture).save(folder / split / name)
        images.append({"id": number, "file_name": name, "width": 80, "height": 60})
    categories = [{"id": label, "name": name} for label, name in enumerate(COLOURS)]
    path = folder / f"{split}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Paths of 12 training, 4 validation and 3 test pictures."""
    folder = tmp_path_factory.mktemp("scenes")
    paths = {split: str(write_scenes(folder, split, n, n)) for split, n in (("train", 12), ("val", 4), ("test", 3))}
    return DataConfig(**paths)


@pytest.fixture(scope="session")
def small(scenes: DataConfig) -> Callable[..., Recipe]:
    """Return a function that makes a small recipe; keywords are top-level sections or fields of [train]."""

    def make(**changes: Any) -> Recipe:
        train = TrainConfig(steps=6, batch=4, warmup=2, checkpoint_every=2, threads=1)
        sections = {name: changes.pop(name) for name in list(changes) if name in Recipe.__dataclass_fields__}
        recipe = Recipe(
            name="small",
            data=scenes,
            input=InputConfig(height=64, width=64),
            student=ModelConfig(backbone="csp-tiny", width=0.25, channels=16, head_depth=1),
            augment=AugmentConfig(mosaic=0.2),
            train=dataclasses.replace(train, **changes),
        )
        return recipe.replace(**sections)

    return make


@pytest.fixture(scope="session")
def taught(small: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe of two steps that distils with PKD, its teacher trained as long."""
    recipe = small(steps=2)
    teacher = train(recipe, tmp_path_factory.mktemp("taught"))
    config = dataclasses.replace(recipe.student, weights=str(teacher.weights))
    return recipe.replace(teacher=config, distill=(DistillConfig(method="pkd"),))


@pytest.fixture(autouse=True)
def _one_thread_and_no_leftovers() -> Any:
    """Training sets global switches of torch; put them back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=False)
    torch.utils.deterministic.fill_uninitialized_memory = True
