"""Loading pretrained weights from local files: .safetensors, .npz or a tensors-only .pth."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import WeightsError
from .weights_report import WeightsReport

if TYPE_CHECKING:
    from .backbones import Backbone
    from .detector import Detector

_DETECTOR_PARTS = ("backbone.", "neck.", "head.")
_SHOWN = 4


def load_model_weights(
    model: Detector, path: str | Path, *, sha256: str | None = None, stages: str = "all"
) -> WeightsReport:
    """Load what a recipe's `weights` names: a whole detector if the file's names say so, else the backbone.

    Names of a whole detector all start with "backbone.", "neck." or "head."; see `load_weights` for the rest.
    """
    path = Path(path)
    tensors, digest = _read(path, sha256)
    if all(name.startswith(_DETECTOR_PARTS) for name in tensors):
        return _load_detector(model, path, tensors, digest)
    return _load_backbone(model.backbone, path, tensors, digest, stages)


def load_weights(
    module: Backbone, path: str | Path, *, sha256: str | None = None, stages: str = "all"
) -> WeightsReport:
    """Load a backbone's weights.

    Args:
        module: the backbone; half-precision tensors are cast to its dtype.
        path: .safetensors, .npz, or .pth/.pt that holds nothing but named tensors.
        sha256: expected digest of the file, hex; None: any. The report always has the digest.
        stages: "all", or the deepest entry of `module.stages` that the file holds; what comes after stays random.

    Raises:
        WeightsError: the file is missing, damaged, has another digest, or its tensors do not fit the network.
    """
    path = Path(path)
    tensors, digest = _read(path, sha256)
    return _load_backbone(module, path, tensors, digest, stages)


def load_detector(model: Detector, path: str | Path, *, sha256: str | None = None) -> WeightsReport:
    """Load a whole detector, every tensor of it.

    Raises:
        WeightsError: as `load_weights`.
    """
    path = Path(path)
    tensors, digest = _read(path, sha256)
    return _load_detector(model, path, tensors, digest)


def _load_detector(model: Detector, path: Path, tensors: dict[str, Tensor], digest: str) -> WeightsReport:
    report = WeightsReport(path, digest, "detector", len(tensors), _values(tensors), (), ())
    _copy(model, path, tensors, allowed=())
    return report


def _load_backbone(module: Backbone, path: Path, tensors: dict[str, Tensor], digest: str, stages: str) -> WeightsReport:
    if stages == "all":
        absent: tuple[str, ...] = ()
    elif stages in module.stages:
        absent = module.stages[module.stages.index(stages) + 1 :]
    else:
        raise WeightsError(
            f"stages = {stages!r} is unknown to this backbone; possible: all, {', '.join(module.stages)}"
        )
    ignored = tuple(name for name in tensors if _under(name, module.classifier))
    wanted = {name: value for name, value in tensors.items() if name not in ignored}
    missing = _copy(module, path, wanted, allowed=absent)
    return WeightsReport(path, digest, "backbone", len(wanted), _values(wanted), missing, ignored)


def _under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name.startswith(prefix + ".") for prefix in prefixes)


def _values(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())


def _copy(module: nn.Module, path: Path, tensors: dict[str, Tensor], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Copy `tensors` into `module`; names under `allowed` may lack. Nothing is changed when anything does not fit."""
    state = module.state_dict()
    problems = []
    unexpected = [name for name in tensors if name not in state]
    absent = [name for name in state if name not in tensors and not name.endswith("num_batches_tracked")]
    lost = [name for name in absent if not _under(name, allowed)]
    misfits = [
        f"{name} is {tuple(value.shape)}, should be {tuple(state[name].shape)}"
        for name, value in tensors.items()
        if name in state and value.shape != state[name].shape
    ]
    for what, names in (("unexpected", unexpected), ("missing", lost), ("of another shape", misfits)):
        if names:
            more = ", ..." if len(names) > _SHOWN else ""
            problems.append(f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}")
    if problems:
        hint = "" if not lost else "; if the file holds a part of the backbone, say up to where with `stages`"
        raise WeightsError(f"{path} does not fit {type(module).__name__}: {'; '.join(problems)}{hint}")
    broken = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise WeightsError(f"{path} holds values that are not finite in {', '.join(broken[:_SHOWN])}")
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].copy_(value)
    return tuple(absent)


def _read(path: Path, sha256: str | None) -> tuple[dict[str, Tensor], str]:
    """Return the file's tensors and its digest."""
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
        ".pth": _read_pth,
        ".pt": _read_pth,
    }
    if not path.is_file():
        raise WeightsError(
            f'no weights file at {path}; put it there, or set weights = "none" to start from random values'
        )
    if path.suffix not in readers:
        raise WeightsError(f"{path}: the format {path.suffix!r} is unknown; possible: {', '.join(readers)}")
    digest = _digest(path)
    if sha256 is not None and digest != sha256.lower():
        raise WeightsError(f"{path} has SHA-256 {digest}, the recipe says {sha256.lower()}")
    tensors = readers[path.suffix](path)
    if not tensors:
        raise WeightsError(f"{path} holds no tensors")
    return tensors, digest


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is no readable safetensors file: {error}") from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is no readable .npz of plain arrays: {error}") from error


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(
            f"{path} is not a .pth of tensors alone (nothing else is ever unpickled): {error}"
        ) from error
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping) or not all(isinstance(value, Tensor) for value in raw.values()):
        raise WeightsError(f"{path} should map names to tensors")
    return {str(name): value for name, value in raw.items()}
