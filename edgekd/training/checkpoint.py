"""Checkpoints: safetensors files with JSON metadata, written atomically, the last two kept.

A checkpoint holds the student, its average, the adapters and the optimiser state, each tensor under a dotted name.
Nothing is pickled, so a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import HostError, RecipeError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEPT = 2


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what could not be written, and that a run is not lost.

    Raises:
        HostError: the system refuses; the message has its reason.
    """
    try:
        yield
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror or error}; once that is mended, type the same command again: a "
            "training goes on from its newest checkpoint"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        HostError: it cannot be written.
    """
    partial = path.with_name(path.name + f".{os.getpid()}.partial")
    with writing(path):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-ready metadata as one safetensors file, atomically."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"edgekd": json.dumps(meta)}))


def keep_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write `recipe.json` into the folder of a run, created if missing, which marks it as one.

    Raises:
        RecipeError: the folder holds a `model.bin` and no run, which its end would replace.
        HostError: it cannot be written.
    """
    path = folder / "recipe.json"
    if (folder / "model.bin").exists() and not path.exists():
        raise RecipeError(f"{folder} holds a model.bin that no run there has made: use another output folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(recipe, indent=2) + "\n").encode())


def read_meta(path: Path) -> dict[str, Any]:
    """Read the metadata that `write_tensors` wrote, and no tensor.

    Raises:
        WeightsError: the file is missing, damaged, or was not written by edgekd.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = (file.metadata() or {}).get("edgekd")
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    if meta is None:
        raise WeightsError(f"{path} was not written by edgekd: its metadata has no 'edgekd' entry")
    return dict(json.loads(meta))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` optimiser steps."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors below `prefix.`, without it."""
        start = prefix + "."
        return {name[len(start) :]: t for name, t in self.tensors.items() if name.startswith(start)}


class CheckpointFolder:
    """The checkpoints of one run: `step-00000200.safetensors` ..."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Return the checkpoint files, oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def write(self, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
        """Add a checkpoint, then remove all but the last two and what a killed writer left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.safetensors"
        write_tensors(path, tensors, {**meta, "step": step})
        for stale in [*self.files()[:-KEPT], *self.folder.glob("*.partial")]:
            stale.unlink(missing_ok=True)
        return path

    def latest(self) -> Checkpoint | None:
        """Return the newest readable checkpoint, or None; a damaged one is passed over for the one before."""
        for path in reversed(self.files()):
            try:
                tensors, meta = read_tensors(path), read_meta(path)
            except WeightsError:
                continue
            return Checkpoint(int(meta["step"]), tensors, meta)
        return None

    def clear(self) -> None:
        """Remove every checkpoint."""
        for path in [*self.files(), *self.folder.glob("*.partial")]:
            path.unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """Return the optimiser's per-parameter state as `<parameter name>/<state>` -> tensor."""
    return {
        f"{names[parameter]}/{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned; torch places each tensor on its parameter's device.

    A file knows no memory layout, but a fused step walks parameter and state side by side in memory: the state takes
    the parameter's layout.
    """
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    number = {names[parameter]: index for index, parameter in enumerate(order)}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, key = name.rsplit("/", 1)
        parameter = order[number[owner]]
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(number[owner], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def parameter_names(**modules: nn.Module) -> dict[Tensor, str]:
    """Return a name for each parameter: `<keyword>.<its name in that module>`."""
    return {p: f"{part}.{name}" for part, module in modules.items() for name, p in module.named_parameters()}
