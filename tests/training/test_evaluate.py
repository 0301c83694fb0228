"""Evaluation goes through the runtime's letterbox and suppression and back to pixels of the original image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from edgekd import ops
from edgekd._recipe import DataConfig, InputConfig, Recipe
from edgekd.training.data.read import read
from edgekd.training.data.sample import Dataset, Sample
from edgekd.training.evaluate import detect, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CPU = torch.device("cpu")
SIZE = InputConfig(height=64, width=96)


class Oracle(nn.Module):
    """Answers with the true boxes, letterboxed; each box twice, a little moved, for the suppression to drop one."""

    def __init__(self, dataset: Dataset, size: InputConfig) -> None:
        super().__init__()
        self.rows = [self._rows(sample, size) for sample in dataset.samples]
        self.seen: list[Tensor] = []

    @staticmethod
    def _rows(sample: Any, size: InputConfig) -> tuple[Tensor, Tensor]:
        _, place = ops.letterbox(sample.load(), size.height, size.width, swap=False, mean=(0,) * 3, std=(1,) * 3)
        shift = np.array([place.left, place.top] * 2, np.float32)
        boxes = sample.boxes * np.array([place.scale_x, place.scale_y] * 2, np.float32) + shift
        both = np.zeros((20, 4), np.float32)
        scores = np.zeros((20, 2), np.float32)
        for row, (box, label) in enumerate(zip(boxes, sample.labels, strict=True)):
            both[2 * row], both[2 * row + 1] = box, box + 0.5
            scores[2 * row, label], scores[2 * row + 1, label] = 0.9, 0.8
        return torch.from_numpy(both), torch.from_numpy(scores)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert not self.training
        assert not torch.is_grad_enabled()
        start = sum(len(each) for each in self.seen)
        self.seen.append(images)
        boxes, scores = zip(*self.rows[start : start + len(images)], strict=True)
        return torch.stack(boxes), torch.stack(scores)


def test_right_boxes_give_a_perfect_score_whatever_the_batch(scenes: DataConfig) -> None:
    dataset = read(scenes.train)
    for batch in (1, 5):
        found = list(detect(Oracle(dataset, SIZE), dataset, SIZE, CPU, batch=batch))  # type: ignore[arg-type]
        for sample, result in zip(dataset.samples, found, strict=True):
            assert result.image_size == (60, 80)
            kept = result[result.scores > 0.85]
            order = np.lexsort(kept.boxes.T)
            expected = sample.boxes[np.lexsort(sample.boxes.T)]
            np.testing.assert_allclose(kept.boxes[order], expected, atol=0.02)
    assert evaluate(Oracle(dataset, SIZE), dataset, SIZE, CPU)["AP75"] > 0.95  # type: ignore[arg-type]


def test_pixels_are_those_of_the_runtime(scenes: DataConfig) -> None:
    dataset = read(scenes.val)
    size = InputConfig(height=64, width=96, color="bgr", mean=(10, 20, 30), std=(2, 3, 4))
    oracle = Oracle(dataset, size)
    list(detect(oracle, dataset, size, CPU, batch=3))  # type: ignore[arg-type]
    expected, _ = ops.letterbox(dataset.samples[0].load(), 64, 96, swap=True, mean=(10, 20, 30), std=(2, 3, 4))
    assert [len(each) for each in oracle.seen] == [3, 1]
    np.testing.assert_array_equal(oracle.seen[0][0].numpy(), expected)


def test_mode_of_the_model_is_restored(scenes: DataConfig) -> None:
    dataset = read(scenes.val)
    oracle = Oracle(dataset, SIZE).train()
    evaluate(oracle, dataset, SIZE, CPU)  # type: ignore[arg-type]
    assert oracle.training


@pytest.mark.parametrize("training", [True, False])
def test_real_model_is_evaluated_in_evaluation_mode(
    small: Callable[..., Recipe], scenes: DataConfig, training: bool
) -> None:
    from edgekd.training.models import build_model

    recipe = small()
    model = build_model(recipe.student, 2, recipe.input, seed=0).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    metrics = evaluate(model, read(scenes.val), recipe.input, CPU)
    assert 0 <= metrics["AP"] <= 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("task", "kept"), [("obb", 1), ("detect", 2)])
def test_oriented_boxes_are_thinned_as_dota_does(task: str, kept: int, tmp_path: Path) -> None:
    """Two detections that share a third of their union: above DOTA's 0.1, below COCO's 0.6."""
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    nothing = (np.empty((0, 5), np.float32), np.empty(0, np.int64), np.empty(0, bool))
    dataset = Dataset("set", task, ("ship",), (Sample(tmp_path / "a.png", (96, 64), *nothing),))

    class Fixed(nn.Module):
        def forward(self, _: Tensor) -> tuple[Tensor, Tensor]:
            boxes = [[[40.0, 30.0, 40.0, 10.0, 0.3], [40.0, 35.0, 40.0, 10.0, 0.3]]]
            return torch.tensor(boxes), torch.tensor([[[0.9], [0.8]]])

    assert [len(found) for found in detect(Fixed(), dataset, SIZE, CPU)] == [kept]  # type: ignore[arg-type]
