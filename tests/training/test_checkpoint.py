"""Checkpoints: whole or not there, two of them, no pickle."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from edgekd._recipe import TrainConfig
from edgekd.errors import HostError, WeightsError
from edgekd.training import checkpoint
from edgekd.training.checkpoint import CheckpointFolder, read_meta, read_tensors, write_tensors
from edgekd.training.optim import build_optimizer

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {"student.a": torch.arange(6.0).reshape(2, 3), "student.b": torch.tensor(3), "average.a": torch.zeros(2)}


def test_tensors_and_metadata_come_back_bit_for_bit(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(7, TENSORS, {"identity": {"x": [1, "ü"]}})
    found = folder.latest()
    assert found is not None
    assert found.step == 7
    assert found.meta["identity"] == {"x": [1, "ü"]}
    assert set(found.part("student")) == {"a", "b"}
    for name, tensor in TENSORS.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_last_two_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (200, 1000, 400, 600):
        folder.write(step, TENSORS, {})
    assert [path.name for path in folder.files()] == ["step-00000600.safetensors", "step-00001000.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_damaged_newest_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(1, TENSORS, {})
    newest = folder.write(2, TENSORS, {})
    data = newest.read_bytes()
    newest.write_bytes({"truncated": data[:-5], "overwritten": b"\xff" * 200, "empty": b""}[damage])
    found = folder.latest()
    assert found is not None
    assert found.step == 1


def test_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").latest() is None


def test_what_a_killed_writer_left_is_removed_and_never_read(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    (tmp_path / "step-00000009.safetensors.123.partial").write_bytes(b"half")
    assert folder.latest() is None
    folder.write(1, TENSORS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.safetensors"]


def test_writer_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(1)}, {})

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    with pytest.raises(HostError, match=r"x\.safetensors: disk full; once .* goes on from its newest checkpoint"):
        write_tensors(path, {"a": torch.zeros(1)}, {})
    assert torch.equal(read_tensors(path)["a"], torch.ones(1))
    assert list(tmp_path.iterdir()) == [path]


def test_reader_of_the_old_file_keeps_it_while_a_new_one_is_written(tmp_path: Path) -> None:
    path, held = tmp_path / "x.safetensors", tmp_path / "held.safetensors"
    write_tensors(path, {"a": torch.ones(1)}, {})
    held.hardlink_to(path)  # as an open or mapped file is held
    write_tensors(path, {"a": torch.zeros(1)}, {})
    assert torch.equal(read_tensors(held)["a"], torch.ones(1))
    assert torch.equal(read_tensors(path)["a"], torch.zeros(1))


def test_clear_removes_all(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(1, TENSORS, {})
    folder.clear()
    assert list(tmp_path.iterdir()) == []


def test_file_is_plain_safetensors_with_a_json_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"kind": "detector"})
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["edgekd"]) == {"kind": "detector"}
    assert read_meta(path) == {"kind": "detector"}


def test_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match=r"cannot read .*none"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match=r"cannot read .*none"):
        read_meta(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match=r"foreign\.safetensors was not written by edgekd"):
        read_meta(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_restored_optimizer_goes_on_bit_for_bit(name: str, layout: torch.memory_format, tmp_path: Path) -> None:
    """The layout matters: a fused step walks parameter and state side by side in memory."""

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)).to(memory_format=layout)
        return model, build_optimizer([model], TrainConfig(optimizer=name, lr=0.1))

    def advance(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step)).contiguous(memory_format=layout)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    model, optimizer = fresh()
    for step in range(3):
        advance(model, optimizer, step)
    names = checkpoint.parameter_names(net=model)
    state = {f"optimizer.{key}": value for key, value in checkpoint.optimizer_tensors(optimizer, names).items()}
    CheckpointFolder(tmp_path).write(3, {**state, **{f"net.{k}": v for k, v in model.state_dict().items()}}, {})
    found = CheckpointFolder(tmp_path).latest()
    assert found is not None
    other, resumed = fresh()
    other.load_state_dict(found.part("net"))
    checkpoint.restore_optimizer(resumed, checkpoint.parameter_names(net=other), found.part("optimizer"))
    for step in range(3, 6):
        advance(model, optimizer, step)
        advance(other, resumed, step)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
