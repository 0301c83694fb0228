"""Training batches by step."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgekd._recipe import AugmentConfig, InputConfig
from edgekd.errors import DataError, UsageError
from edgekd.training.data import loader
from edgekd.training.data.loader import Batch, TrainBatches, normalise
from edgekd.training.data.sample import Dataset, Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INPUT = InputConfig(height=32, width=48)
PLAIN = AugmentConfig(flip=0, scale=(1, 1), translate=0, hsv=(0, 0, 0))
WILD = AugmentConfig(mosaic=0.5, rotate_deg=30, flip_vertical=0.5, hsv=(0.1, 0.5, 0.5))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return numbered(tmp_path, 7)


def numbered(folder: Path, count: int, size: tuple[int, int] = (48, 32), columns: int = 4) -> Dataset:
    """Grey pictures, picture i of level 10 * i with one box of label i."""
    samples = []
    for i in range(count):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((size[1], size[0], 3), 10 * i, np.uint8)).save(path)
        box = [size[0] / 4, size[1] / 4, size[0] / 2, size[1] / 2] + [0.25] * (columns - 4)
        samples.append(Sample(path, size, np.array([box], np.float32), np.array([i]), np.array([False])))
    task = "obb" if columns == 5 else "detect"
    return Dataset("numbered", task, tuple(map(str, range(count))), tuple(samples))


def batches(dataset: Dataset, augment: AugmentConfig = PLAIN, **options: Any) -> TrainBatches:
    return TrainBatches(dataset, **{"input": INPUT, "augment": augment, "batch": 4, "seed": 0, **options})


def equal(a: Batch, b: Batch) -> bool:
    if not torch.equal(a.images, b.images) or len(a.boxes) != len(b.boxes):
        return False
    columns = [*zip(a.boxes, b.boxes, strict=True), *zip(a.labels, b.labels, strict=True)]
    return all(torch.equal(x, y) for x, y in columns)


def ids(batch: Batch) -> list[int]:
    return [int(label[0]) for label in batch.labels]


def test_batch_has_the_shapes_and_types_of_the_contract(dataset: Dataset) -> None:
    batch = batches(dataset, WILD).batch_at(3)
    assert batch.images.shape == (4, 3, 32, 48)
    assert batch.images.dtype == torch.uint8
    assert all(box.dtype == torch.float32 and box.shape[1:] == (4,) for box in batch.boxes)
    assert all(label.dtype == torch.int64 for label in batch.labels)
    assert [len(label) for label in batch.labels] == [len(box) for box in batch.boxes]


def test_step_gives_the_same_batch_whatever_was_drawn_before(dataset: Dataset) -> None:
    forward, backward = batches(dataset, WILD), batches(dataset, WILD, cache=False)
    first = [forward.batch_at(step) for step in range(8)]
    again = [backward.batch_at(step) for step in reversed(range(8))][::-1]
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not equal(first[0], first[1])


def test_other_seed_gives_another_batch(dataset: Dataset) -> None:
    assert not equal(batches(dataset, WILD).batch_at(0), batches(dataset, WILD, seed=1).batch_at(0))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_slices_of_the_ranks_join_to_the_batch_of_one_process(world: int, dataset: Dataset) -> None:
    whole = batches(dataset, WILD).batch_at(5)
    parts = [batches(dataset, WILD).batch_at(5, rank, world) for rank in range(world)]
    joined = Batch(
        torch.cat([part.images for part in parts]),
        [box for part in parts for box in part.boxes],
        [label for part in parts for label in part.labels],
    )
    assert equal(whole, joined)


def test_epoch_shows_each_picture_once_in_an_order_of_its_own(dataset: Dataset) -> None:
    source = batches(dataset)
    seen = [picture for step in range(14) for picture in ids(source.batch_at(step))]  # 56 pictures, 8 epochs of 7
    epochs = [seen[i : i + 7] for i in range(0, 56, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_batch_larger_than_the_set_repeats_it(tmp_path: Path) -> None:
    assert sorted(ids(batches(numbered(tmp_path, 2)).batch_at(0))) == [0, 0, 1, 1]


def test_slots_of_one_picture_are_augmented_differently(tmp_path: Path) -> None:
    batch = batches(numbered(tmp_path, 1), AugmentConfig(scale=(0.5, 2))).batch_at(0)
    assert len({tuple(box.flatten().tolist()) for box in batch.boxes}) == 4


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_channels_are_in_the_order_of_the_input(color: str, tmp_path: Path) -> None:
    dataset = numbered(tmp_path, 1)
    Image.fromarray(np.full((32, 48, 3), (10, 20, 30), np.uint8)).save(dataset.samples[0].path)
    batch = batches(dataset, input=InputConfig(height=32, width=48, color=color)).batch_at(0)
    expected = [10, 20, 30] if color == "rgb" else [30, 20, 10]
    assert batch.images[0, :, 10, 10].tolist() == expected


@pytest.mark.parametrize("columns", [4, 5])
def test_large_picture_is_shrunk_with_its_boxes(columns: int, tmp_path: Path) -> None:
    """The picture is cached at 1.5 times network size; the box that leaves is the box that came, to scale."""
    dataset = numbered(tmp_path, 1, (480, 320), columns)
    source = batches(dataset)
    batch = source.batch_at(0)
    expected = [12, 8, 24, 16] if columns == 4 else [12, 8, 24, 16, 0.25]
    np.testing.assert_allclose(batch.boxes[0][0], expected, atol=1e-4)
    cached = source._scenes[0][0]
    assert cached.shape == (48, 72, 3)


def test_small_picture_keeps_its_size_in_the_cache(dataset: Dataset) -> None:
    source = batches(dataset)
    source.batch_at(0)
    assert all(source._scenes[row][0].shape == (32, 48, 3) for row in range(len(dataset)))


def test_cached_pictures_are_decoded_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    load = Sample.load
    monkeypatch.setattr(Sample, "load", lambda self: (decoded.append(self.path), load(self))[1])
    source = batches(dataset, WILD)
    for step in range(20):
        source.batch_at(step)
    assert sorted(decoded) == sorted(sample.path for sample in dataset.samples)
    decoded.clear()
    source = batches(dataset, PLAIN, cache=False)
    for step in range(7):
        source.batch_at(step)
    assert len(decoded) == 28


def test_full_cache_takes_no_more_and_changes_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    free = batches(dataset, WILD)
    monkeypatch.setattr(loader, "CACHE_BYTES", 2 * 32 * 48 * 3)
    tight = batches(dataset, WILD)
    assert all(equal(free.batch_at(step), tight.batch_at(step)) for step in range(5))
    assert len(tight._scenes) == 2


def test_threads_get_the_same_batches(dataset: Dataset) -> None:
    alone = [batches(dataset, WILD).batch_at(step) for step in range(16)]
    shared = batches(dataset, WILD)
    with ThreadPoolExecutor(4) as pool:
        assert all(equal(a, b) for a, b in zip(alone, pool.map(shared.batch_at, range(16)), strict=True))


def test_difficult_objects_are_no_targets(tmp_path: Path) -> None:
    dataset = numbered(tmp_path, 1)
    dataset.samples[0].difficult[0] = True
    assert [len(box) for box in batches(dataset).batch_at(0).boxes] == [0] * 4


def test_difficult_objects_of_oriented_sets_are_targets(tmp_path: Path) -> None:
    """What a tile cuts is marked so; taught as background, objects at borders would be lost."""
    upright = numbered(tmp_path, 1)
    boxes = np.array([[8, 8, 6, 4, 0.2], [20, 8, 6, 4, 0.2]], np.float32)
    sample = dataclasses.replace(
        upright.samples[0], boxes=boxes, labels=np.zeros(2, np.int64), difficult=np.array([True, False])
    )
    oriented = dataclasses.replace(upright, task="obb", samples=(sample,))
    assert [len(box) for box in batches(oriented).batch_at(0).boxes] == [2] * 4


@pytest.mark.parametrize("options", [{"batch": 0}, {"seed": -1}])
def test_impossible_option_raises(options: dict[str, int], dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="batch should be at least 1 and seed at least 0"):
        batches(dataset, **options)


@pytest.mark.parametrize(("rank", "world"), [(0, 3), (2, 2), (-1, 2)])
def test_impossible_rank_raises(rank: int, world: int, dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=f"batch 4 does not divide over {world} ranks"):
        batches(dataset).batch_at(0, rank, world)


@pytest.mark.parametrize(("task", "count"), [("anomaly", 1), ("detect", 0)])
def test_set_without_boxes_to_learn_raises(task: str, count: int, dataset: Dataset) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        batches(Dataset("x", task, ("a",), dataset.samples[:count]))


def test_unreadable_picture_raises_naming_it(dataset: Dataset) -> None:
    dataset.samples[3].path.write_bytes(b"\x89PNG")
    source = batches(dataset, batch=7)
    with pytest.raises(DataError, match=r"cannot read the image .*3.png"):
        source.batch_at(0)


def test_normalise_is_the_runtimes_formula() -> None:
    images = torch.arange(0, 240, dtype=torch.uint8).reshape(2, 3, 5, 8)
    found = normalise(images, INPUT)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (INPUT.mean, INPUT.std))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), (images.numpy().astype(np.float32) - mean) / std)


@pytest.mark.data
def test_blood_cells_come_in_batches(real: Callable[[str], Path]) -> None:
    from edgekd.training.data.read import read

    dataset = read(real("bccd") / "ImageSets" / "Main" / "val.txt")
    source = TrainBatches(dataset, InputConfig(height=64, width=64), AugmentConfig(), 8, 0)
    boxes = torch.cat([box for step in range(11) for box in source.batch_at(step).boxes])
    assert 700 < len(boxes) < 1300
    assert bool(((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= 64) & (boxes[:, :2] >= 0)).all())
