"""`Recipe`: everything a training run depends on, read from one TOML file.

There is no inheritance, no include and no dotted path. A key that does not exist is an error that names the
keys that do, and a value out of range one that names the range: hours of training must not end in it. The bundle holds
the recipe whole.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 on JetPack 6
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images are. `train` and `val` are folders or list files that the reader of `format` understands."""

    train: str
    val: str
    test: str | None = None
    # auto | coco | coco-obb | voc | yolo | yolo-obb | dota | dior | hrsc | ucas | mvtec | btad | visa
    format: str = "auto"
    classes: tuple[str, ...] | None = None  # None: take the reader's


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """The network's input. `mean` and `std` are in 0..255 units, in the order of `color`."""

    height: int = 320
    width: int = 320
    color: str = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad: int = 114  # grey level of the letterbox border, 0..255


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One detector: any backbone x neck x head x width.

    `weights` is "none" (random), or a path to .safetensors, .npz or a tensors-only .pth. `stages` says which part of
    the backbone the file holds: "all", or the deepest stage it reaches ("layer3" of a ResNet); the rest starts random.
    """

    backbone: str
    width: float = 1.0
    neck: str = "pafpn"  # fpn | pafpn | yolov4
    channels: int = 64  # of the neck and head; yolov4: of the finest level, doubled from each level to the next
    # Of oriented boxes: dense-obb (dense-obb-{gwd,kld,probiou}: other box losses) | retina-obb | retina-obb-class.
    head: str = "dense"  # dense | retina | retina-giou | yolo; neck yolov4 takes only yolo
    head_depth: int = 2  # stacked 3x3 convolutions per branch; the published YOLOv4 has 1
    levels: tuple[int, ...] = (3, 4, 5)  # pyramid levels, stride 2**level; neck yolov4 and head yolo take three
    weights: str = "none"
    sha256: str | None = None
    stages: str = "all"
    input: InputConfig | None = None  # a teacher may see another normalisation or size; None: as the student


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Probabilities and ranges of the training augmentation; all zero: none."""

    flip: float = 0.5
    flip_vertical: float = 0.0
    scale: tuple[float, float] = (0.7, 1.4)
    translate: float = 0.1
    hsv: tuple[float, float, float] = (0.015, 0.4, 0.3)
    mosaic: float = 0.0
    rotate_deg: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Budget and optimiser.

    `steps` are optimiser steps; `lr` is the peak rate, reached after `warmup` steps, then cosine to `lr * final_lr`.
    """

    steps: int = 1000
    batch: int = 8
    optimizer: str = "adamw"  # adamw | sgd
    lr: float = 1e-3
    final_lr: float = 0.01
    weight_decay: float = 0.05
    momentum: float = 0.9
    warmup: int = 100
    clip_norm: float = 10.0
    ema: float = 0.998  # 0: off
    amp: bool = False
    seed: int = 0
    threads: int = 0  # torch CPU threads; 0: torch's own choice
    workers: int = 0
    eval_every: int = 0  # steps; 0: only at the end
    checkpoint_every: int = 200


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """One distillation method: `options` are keyword arguments of the class in `training/methods/<method>.py`."""

    method: str
    teacher: str = "teacher"  # "teacher" is [teacher], any other name NAME is [teachers.NAME]
    weight: float = 1.0
    levels: tuple[int, ...] | None = None  # pyramid levels; None: all that both networks have
    warmup: int = 0  # steps over which the weight rises linearly from 0
    schedule: str = "constant"  # constant | linear | cosine: how the weight falls to 0 at `until`
    until: float = 1.0  # share of the run after which the weight is 0, and the teacher does not run for this entry
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class UnlabelledConfig:
    """Images without annotations that a teacher explains: `images` is a folder, or a list file of one path a line.

    Each step takes `batch` of them beside the labelled ones. All methods see them; the detector's own loss sees them if
    `pseudo_labels`: then the teacher's detections from `conf` on, made once before training, serve as their boxes.
    """

    images: str
    batch: int = 4
    pseudo_labels: bool = False
    conf: float = 0.5
    teacher: str = "teacher"  # who labels


@dataclass(frozen=True, kw_only=True)
class QatConfig:
    """The budget of `edgekd distill --qat`, as shares of [train]'s: steps, and the peak learning rate."""

    steps: float = 0.1
    lr: float = 0.1


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Defaults of `predict`, copied into the manifest."""

    conf: float = 0.25
    iou: float | None = None  # None: 0.5; of oriented boxes 0.1: neighbours that lie side by side hardly overlap
    max_det: int = 300


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run; see the fields of each section."""

    name: str
    data: DataConfig
    student: ModelConfig
    task: str = "detect"  # detect
    input: InputConfig = field(default_factory=InputConfig)
    teacher: ModelConfig | None = None
    teachers: dict[str, ModelConfig] = field(default_factory=dict)  # more of them, by the name [[distill]] calls them
    unlabelled: UnlabelledConfig | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distill: tuple[DistillConfig, ...] = ()
    predict: PredictConfig = field(default_factory=PredictConfig)
    qat: QatConfig | None = None  # None: the usual shares

    def __post_init__(self) -> None:
        """Refuse a value out of range.

        Raises:
            RecipeError: there is one; the message names the key and what is possible.
        """
        check_values(self, POSSIBLE)

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe from a TOML file, or from the JSON that a run keeps of it.

        Relative paths in it (data, weights) are resolved against the file's folder.

        Raises:
            RecipeError: the file is missing or cannot be parsed, or a key is wrong, missing, unknown or out of range.
        """
        path = Path(path)
        return cls.from_dict(read_tables(path)).resolved(path.parent.resolve())

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Recipe:
        """Build a recipe from plain dicts and lists (TOML or JSON); unknown keys and wrong values raise RecipeError."""
        return typing.cast(Recipe, build_section(cls, raw, "recipe"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars; `Recipe.from_dict(r.to_dict()) == r`."""
        return plain(self)

    def resolved(self, folder: Path) -> Recipe:
        """Return a copy whose relative paths are absolute, taken from `folder`."""

        def absolute(text: str) -> str:
            return str((folder / text).resolve())

        def model(config: ModelConfig) -> ModelConfig:
            if config.weights == "none":
                return config
            return dataclasses.replace(config, weights=absolute(config.weights))

        test = None if self.data.test is None else absolute(self.data.test)
        data = dataclasses.replace(self.data, train=absolute(self.data.train), val=absolute(self.data.val), test=test)
        return dataclasses.replace(
            self,
            data=data,
            student=model(self.student),
            teacher=None if self.teacher is None else model(self.teacher),
            teachers={name: model(config) for name, config in self.teachers.items()},
            unlabelled=None
            if self.unlabelled is None
            else dataclasses.replace(self.unlabelled, images=absolute(self.unlabelled.images)),
        )

    def all_teachers(self) -> dict[str, ModelConfig]:
        """Return name -> section: [teacher] is "teacher", [teachers.NAME] is NAME."""
        return {**({} if self.teacher is None else {"teacher": self.teacher}), **self.teachers}

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with top-level fields changed, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


LARGEST = sys.float_info.max  # what is above is infinite
MOST_SEED = 2**63 - 1  # torch takes no more
MOST_THREADS = 1024


class Range(NamedTuple):
    """The finite numbers a key may have, the ends among them unless said otherwise."""

    low: float
    high: float = LARGEST
    above: bool = False  # `low` itself is not possible
    below: bool = False  # `high` itself is not possible

    def holds(self, value: object) -> bool:
        """Return whether it is one of them."""
        if not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        return not (self.above and value == self.low) and not (self.below and value == self.high)

    def __str__(self) -> str:
        """Return "at least 0 and below 1" and the like."""
        low = f"{'above' if self.above else 'at least'} {self.low}"
        return low if self.high == LARGEST else f"{low} and {'below' if self.below else 'at most'} {self.high}"


class Choice(NamedTuple):
    """The words a key may have."""

    words: tuple[str, ...]

    def holds(self, value: object) -> bool:
        """Return whether it is one of them."""
        return value in self.words

    def __str__(self) -> str:
        """Return them."""
        return " or ".join(self.words)


class Name(NamedTuple):
    """A name that a manifest can hold."""

    longest: int = 256

    def holds(self, value: object) -> bool:
        """Return whether it is one."""
        return (
            isinstance(value, str)
            and value == value.strip() != ""
            and value.isprintable()
            and len(value) <= self.longest
        )

    def __str__(self) -> str:
        """Return what it is made of."""
        return f"1 to {self.longest} printable characters without blanks around them"


Possible = typing.Mapping[type, typing.Mapping[str, "Range | Choice | Name"]]

AT_LEAST_0, AT_LEAST_1, ABOVE_0 = Range(0), Range(1), Range(0, above=True)
SHARE, BELOW_1, SOME = Range(0, 1), Range(0, 1, below=True), Range(0, 1, above=True)

POSSIBLE: Possible = {
    Recipe: {"name": Name()},
    InputConfig: {
        "height": AT_LEAST_1,
        "width": AT_LEAST_1,
        "color": Choice(("rgb", "bgr")),
        "mean": Range(-1_000_000, 1_000_000),
        "std": Range(1e-6, 1_000_000),  # pixels are divided by it
        "pad": Range(0, 255),
    },
    AugmentConfig: {
        "flip": SHARE,
        "flip_vertical": SHARE,
        "scale": ABOVE_0,
        "translate": SHARE,
        "hsv": AT_LEAST_0,
        "mosaic": SHARE,
        "rotate_deg": AT_LEAST_0,
    },
    TrainConfig: {
        "steps": AT_LEAST_1,
        "batch": AT_LEAST_1,
        "lr": AT_LEAST_0,
        "final_lr": AT_LEAST_0,
        "weight_decay": AT_LEAST_0,
        "momentum": BELOW_1,
        "warmup": AT_LEAST_0,
        "clip_norm": AT_LEAST_0,
        "ema": BELOW_1,
        "seed": Range(0, MOST_SEED),
        "threads": Range(0, MOST_THREADS),
        "workers": Range(0, MOST_THREADS),
        "eval_every": AT_LEAST_0,
        "checkpoint_every": AT_LEAST_1,
    },
    DistillConfig: {"weight": AT_LEAST_0, "warmup": AT_LEAST_0, "until": SOME},
    UnlabelledConfig: {"batch": AT_LEAST_1, "conf": SHARE},
    QatConfig: {"steps": SOME, "lr": SOME},
    PredictConfig: {"conf": SHARE, "iou": SHARE, "max_det": Range(1, 10_000_000)},
}
"""Section -> key -> what it may be. Other keys are looked at by what they configure, before the first step."""


def check_values(section: Any, possible: Possible, where: str = "") -> None:
    """Look at every value of a section and of those inside it; `where` is its name in messages.

    Raises:
        RecipeError: one is not possible.
    """
    known = possible.get(type(section), {})
    for item in dataclasses.fields(section):
        path = f"{where}.{item.name}" if where else item.name
        _check_value(getattr(section, item.name), known.get(item.name), possible, path)


def _check_value(value: Any, rule: Range | Choice | Name | None, possible: Possible, where: str) -> None:
    if dataclasses.is_dataclass(value):
        check_values(value, possible, where)
    elif isinstance(value, tuple):
        for place, each in enumerate(value):
            _check_value(each, rule, possible, f"{where}[{place}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_value(each, rule, possible, f"{where}.{key}")
    elif rule is not None and value is not None and not rule.holds(value):
        finite = " and finite" if isinstance(value, float) and not math.isfinite(value) else ""
        raise RecipeError(f"{where} should be {rule}{finite}, got {value!r}")


def read_tables(path: Path) -> dict[str, Any]:
    """Return the tables of a recipe's file: TOML, or JSON if its name ends so, as a run keeps it.

    Raises:
        RecipeError: the file is missing or is neither.
    """
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise RecipeError(f"no recipe at {path}") from error
    except IsADirectoryError as error:
        raise RecipeError(
            f"{path} is a folder, a recipe is a .toml file; to train on a folder of normal images: "
            f"edgekd train --task anomaly {path}"
        ) from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid {kind}: {error}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} should hold a table, got {type(raw).__name__}")
    return raw


def plain(recipe: Any) -> dict[str, Any]:
    """Return a section's dataclass as plain dicts, lists and scalars."""
    return typing.cast("dict[str, Any]", _plain(dataclasses.asdict(recipe)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def build_section(cls: type, raw: object, where: str) -> Any:
    """Fill a dataclass from a dict, checking each key and type; `where` is the section's name in messages.

    Raises:
        RecipeError: an unknown or missing key, or a value of the wrong type.
    """
    if not isinstance(raw, dict):
        raise RecipeError(f"[{where}] should be a table, got {raw!r}")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key in raw:
        if key not in fields:
            raise RecipeError(f"[{where}] has no key {key!r}; possible: {', '.join(sorted(fields))}")
    hints = typing.get_type_hints(cls)
    values = {key: _convert(hints[key], item, f"{where}.{key}") for key, item in raw.items()}
    for name, item in fields.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise RecipeError(f"[{where}] lacks the key {name!r}")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Return `value` as `hint` wants it, or raise RecipeError naming the key."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        inner = [item for item in typing.get_args(hint) if item is not type(None)]
        return _convert(inner[0], value, where)
    if dataclasses.is_dataclass(hint):
        return build_section(typing.cast(type, hint), value, where)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise RecipeError(f"{where} should be a table, got {value!r}")
        inside = typing.get_args(hint)[1]
        return {key: item if inside is Any else _convert(inside, item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, where)
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        raise RecipeError(f"{where} should be {hint.__name__}, got {value!r}")
    return value


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise RecipeError(
            f"{where} should be at most {LARGEST:g}, got an integer of {value.bit_length()} bits"
        ) from error


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise RecipeError(f"{where} should be a list, got {value!r}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(args):
        raise RecipeError(f"{where} should have {len(args)} items, got {len(value)}")
    return tuple(_convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(args, value, strict=True)))
