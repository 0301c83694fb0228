"""`AnomalyRecipe`: all that a run of anomaly detection depends on, from one TOML file with `task = "anomaly"`."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._recipe import (
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    MOST_SEED,
    MOST_THREADS,
    POSSIBLE,
    SHARE,
    InputConfig,
    Name,
    Range,
    build_section,
    check_values,
    plain,
    read_tables,
)

TEXTURES = "textures"
BROUGHT = ("none", TEXTURES)
"""Values of `weights` that name no file."""

ALPHA = 0.05  # false alarms: one of twenty normal images at most
PIXEL_ALPHA = 1e-3


@dataclass(frozen=True, kw_only=True)
class AnomalyDataConfig:
    """Where the images are: the folder of one category, `train/good`, `test/<defect>`, `ground_truth/<defect>`."""

    path: str
    format: str = "auto"  # auto | mvtec | btad | visa
    calibration: float = 0.2  # share of the normal training images held out for the thresholds; more if alpha needs it


@dataclass(frozen=True, kw_only=True)
class AnomalyTeacherConfig:
    """One frozen teacher. `weights`, `sha256`, `stages` and `input` as of a detector's [teacher].

    weights = "textures" are those that edgekd brings along: of a ResNet-18 of half the width up to layer3 that has
    learnt from drawn textures; see `edgekd.training.anomaly.textures`.
    """

    backbone: str  # resnet18 | resnet34 | resnet50 | resnet101 | mobilenetv2 | mobilenetv2-tf | squeezenet1.1
    width: float = 1.0
    weights: str = "none"
    sha256: str | None = None
    stages: str = "all"
    input: InputConfig | None = None  # what its weights know; None: as the network's. Sizes are not looked at
    calibrate: str = "auto"  # auto | always | never: fit BatchNorm to the training images; auto: if weights are random


@dataclass(frozen=True, kw_only=True)
class AnomalyModelConfig:
    """Method, student, fusion and loss; see docs/anomaly.md."""

    method: str = "rd"  # rd (RD4AD, and what two teachers make of it) | rd++ (with projectors) | stfpm (an encoder)
    target: str = "single"  # single | fused_sg | both_raw
    student: str = "plain"  # plain | mirror; mirror needs a ResNet first and target single or fused_sg
    widths: tuple[int, int, int] = (64, 128, 256)  # of the plain student, at strides 4, 8, 16
    fusion: str = "iaff"  # of two teachers: iaff | add
    loss: str = "global"  # global | per_location
    freeze: float = 0.1  # of target fused_sg: share of the steps after which attention and fusion stay as they are
    reduction: int = 4  # of the channels inside attention and fusion
    embedding: int = 0  # channels of the bottleneck; 0: twice the coarsest of the first teacher, as RD4AD
    storage: str = "fp32"  # fp32 | fp16: what the portable graph stores weights in; it computes in fp32 either way


@dataclass(frozen=True, kw_only=True)
class AnomalyTrainConfig:
    """Budget and optimiser: Adam with betas 0.5 and 0.999 at a constant rate, as RD4AD. The last weights count.

    A step looks at one batch. Of method "rd++" the optimiser moves at every second step, along both gradients. Of
    "stfpm" it is SGD with momentum 0.9 and weight decay 1e-4.
    """

    steps: int = 3000
    batch: int = 16
    lr: float = 5e-3
    fusion_lr: float = 1e-3  # of attention and fusion
    projector_lr: float = 1e-3  # of the projectors of method "rd++"
    sgd_lr: float = 0.4  # of method "stfpm", in the place of lr
    clip_norm: float = 0.0  # 0: no limit
    amp: bool = False  # convolutions in bfloat16, norms and cosines in float32; what is exported computes in float32
    seed: int = 0
    threads: int = 0  # torch CPU threads; 0: torch's own choice
    workers: int = 0
    checkpoint_every: int = 200

    @property
    def eval_every(self) -> int:
        """Never: there is nothing to validate on but test images, which must not choose anything."""
        return 0


@dataclass(frozen=True, kw_only=True)
class AnomalyPredictConfig:
    """What the thresholds promise; see `edgekd._thresholds`."""

    alpha: float = ALPHA
    pixel_alpha: float = PIXEL_ALPHA


def _square() -> InputConfig:
    return InputConfig(height=256, width=256)


@dataclass(frozen=True, kw_only=True)
class AnomalyRecipe:
    """A whole run; see the fields of each section."""

    name: str
    data: AnomalyDataConfig
    teachers: tuple[AnomalyTeacherConfig, ...]  # [[teachers]], one or two
    task: str = "anomaly"
    input: InputConfig = field(default_factory=_square)
    model: AnomalyModelConfig = field(default_factory=AnomalyModelConfig)
    train: AnomalyTrainConfig = field(default_factory=AnomalyTrainConfig)
    predict: AnomalyPredictConfig = field(default_factory=AnomalyPredictConfig)

    def __post_init__(self) -> None:
        """Refuse a value out of range.

        Raises:
            RecipeError: there is one; the message names the key and what is possible.
        """
        check_values(self, ANOMALY_POSSIBLE)

    @classmethod
    def read(cls, path: str | Path) -> AnomalyRecipe:
        """Read a recipe; relative paths in it are taken from the file's folder.

        Raises:
            RecipeError: the file is missing, is no TOML, has a wrong, missing or unknown key, or a value out of range.
        """
        path = Path(path)
        return cls.from_dict(read_tables(path)).resolved(path.parent.resolve())

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> AnomalyRecipe:
        """Build a recipe from plain dicts and lists (TOML or JSON); unknown keys and wrong values raise RecipeError."""
        return typing.cast(AnomalyRecipe, build_section(cls, raw, "recipe"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars; `AnomalyRecipe.from_dict(r.to_dict()) == r`."""
        return plain(self)

    def resolved(self, folder: Path) -> AnomalyRecipe:
        """Return a copy whose relative paths are absolute, taken from `folder`."""

        def absolute(text: str) -> str:
            return str((folder / text).resolve())

        teachers = tuple(
            each if each.weights in BROUGHT else dataclasses.replace(each, weights=absolute(each.weights))
            for each in self.teachers
        )
        data = dataclasses.replace(self.data, path=absolute(self.data.path))
        return dataclasses.replace(self, data=data, teachers=teachers)


ANOMALY_POSSIBLE = {
    **POSSIBLE,
    AnomalyRecipe: {"name": Name()},
    AnomalyDataConfig: {"calibration": SHARE},
    AnomalyModelConfig: {"widths": AT_LEAST_1, "freeze": SHARE, "reduction": AT_LEAST_1, "embedding": AT_LEAST_0},
    AnomalyTrainConfig: {
        "steps": AT_LEAST_1,
        "batch": Range(2),  # BatchNorm of the embedding sees one value a channel on the smallest inputs
        "lr": AT_LEAST_0,
        "fusion_lr": AT_LEAST_0,
        "projector_lr": AT_LEAST_0,
        "sgd_lr": AT_LEAST_0,
        "clip_norm": AT_LEAST_0,
        "seed": Range(0, MOST_SEED),
        "threads": Range(0, MOST_THREADS),
        "workers": Range(0, MOST_THREADS),
        "checkpoint_every": AT_LEAST_1,
    },
    AnomalyPredictConfig: {"alpha": Range(0, 1, above=True, below=True), "pixel_alpha": BELOW_1},
}
