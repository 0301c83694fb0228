"""What benchmarks/distill.py compares: data sets, pairs of networks, budgets; nothing chosen on test images.

Upright boxes are here, oriented ones in distill_oriented.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EDGEKD_DATA", ROOT.parent / "shared" / "data"))
RESNET18 = {"weights": str(SHARED / "weights" / "resnet18_imagenet1k_v1_conv1_to_layer3.npz"), "stages": "layer3"}
MOBILENETV2 = {"weights": str(SHARED / "weights" / "mobilenet_v2_imagenet_dequant_fp32.npz")}
MOBILENETV2_PIXELS = {"mean": [127.5, 127.5, 127.5], "std": [127.5, 127.5, 127.5]}  # what its weights are used to


@dataclass(frozen=True)
class DataSet:
    """Splits of a data set; the teacher of a synthetic set learns from other scenes, which are free.

    Of large images, train and val are tiles; the test images are whole, and `test_tiles` shows the background.
    """

    train: Path
    val: Path
    test: Path
    teacher_train: Path
    note: str
    tile: int | None = None
    overlap: int | None = None
    test_tiles: Path | None = None


@dataclass(frozen=True)
class Pair:
    """A student and its teacher: model sections of a recipe, and optimiser steps by data set."""

    note: str
    student: dict[str, Any]
    teacher: dict[str, Any]
    student_steps: dict[str, int]
    teacher_steps: dict[str, int]
    size: int = 256
    batch: int = 8
    student_lr: float = 2e-3
    teacher_lr: float = 5e-4
    teachers: dict[str, dict[str, Any]] = field(default_factory=dict)  # another teacher (and "lr") for a data set
    methods: tuple[str, ...] = ("baseline", "pkd", "fgd", "mgd", "cwd", "xfkd", "fad")
    heads: dict[str, str] = field(default_factory=dict)  # method -> another head for the student
    tuned_by: str = "retina"  # the pair whose tuning says how much each method weighs, where this one has none
    untuned: bool = False  # weights as they are written below: its runs came before any tuning
    augment: dict[str, Any] = field(default_factory=dict)
    teacher_augment: dict[str, Any] = field(default_factory=lambda: {"mosaic": 0.3})


def upright_sets(work: Path) -> dict[str, DataSet]:
    """Return the sets of upright boxes by name; `work` holds the synthetic scenes."""
    bccd, sixray, xray = SHARED / "bccd" / "ImageSets" / "Main", SHARED / "sixray_mini", work / "data" / "xray"
    return {
        "bccd": DataSet(
            bccd / "train.txt", bccd / "val.txt", bccd / "test.txt", bccd / "train.txt",
            "blood cells, 205 training images, test split of 72",
        ),
        "sixray": DataSet(
            sixray / "train.txt", sixray / "val.txt", sixray / "test.txt", sixray / "train.txt",
            "SIXray subset, 364 training images, test split of 52",
        ),
        "xray": DataSet(
            xray / "train.json", xray / "val.json", xray / "test.json", work / "data" / "xray-teacher" / "train.json",
            "synthetic X-ray scenes, 600 training images (teacher: 3000 others), test split of 150",
        ),
    }  # fmt: skip


SMALL: dict[str, Pair] = {
    "retina": Pair(
        note="homogeneous: RetinaNet ResNet-18 -> RetinaNet ResNet-18 of a quarter of the width",
        student={"backbone": "resnet18", "width": 0.25, "neck": "fpn", "channels": 64, "head": "retina"},
        teacher={"backbone": "resnet18", "neck": "fpn", "channels": 64, "head": "retina", **RESNET18},
        student_steps={"bccd": 1000, "sixray": 1000, "xray": 1000},
        teacher_steps={"bccd": 1500, "sixray": 2000, "xray": 3500},
        teachers={
            "xray": {
                "backbone": "resnet18", "width": 0.5, "neck": "fpn", "channels": 64, "head": "retina", "lr": 2e-3,
            }
        },
    ),
    "mobile": Pair(
        note="heterogeneous: MobileNetV2 -> MobileNetV3-small of half the width, dense head",
        student={"backbone": "mobilenetv3-small", "width": 0.5, "neck": "pafpn", "channels": 48, "head": "dense"},
        teacher={
            "backbone": "mobilenetv2-tf", "neck": "pafpn", "channels": 96, "head": "dense",
            "input": MOBILENETV2_PIXELS, **MOBILENETV2,
        },
        student_steps={"bccd": 1600, "sixray": 1600, "xray": 1600},  # after 800 hardly begun
        teacher_steps={"bccd": 2000, "sixray": 2000, "xray": 3500},
        methods=("baseline", "pkd", "fgd", "mgd", "cwd", "xfkd", "xfkd_none", "fad"),
    ),
    "tiny": Pair(
        note="first evidence, PKD alone: ResNet-18 -> tiny CSP, dense head",
        student={"backbone": "csp-tiny", "width": 0.5, "neck": "pafpn", "channels": 48, "head": "dense"},
        teacher={"backbone": "resnet18", "neck": "pafpn", "channels": 96, "head": "dense", **RESNET18},
        student_steps={"bccd": 600, "sixray": 2000, "xray": 600},
        teacher_steps={"bccd": 1200, "sixray": 2000, "xray": 3000},
        methods=("baseline", "pkd"),
        untuned=True,
        teachers={
            "xray": {
                "backbone": "resnet18", "width": 0.5, "neck": "pafpn", "channels": 64, "head": "dense", "lr": 2e-3,
            }
        },
    ),
}  # fmt: skip

FULL: dict[str, Pair] = {
    "r101-r50": Pair(
        note="homogeneous, published pair: RetinaNet ResNet-101 -> RetinaNet ResNet-50, from random weights",
        student={"backbone": "resnet50", "neck": "fpn", "channels": 256, "head": "retina", "levels": [3, 4, 5, 6, 7]},
        teacher={"backbone": "resnet101", "neck": "fpn", "channels": 256, "head": "retina", "levels": [3, 4, 5, 6, 7]},
        student_steps={"bccd": 1500, "sixray": 1500, "xray": 1500},
        teacher_steps={"bccd": 3000, "sixray": 3000, "xray": 3000},
        size=384, batch=16, student_lr=1e-3, teacher_lr=1e-3,
    ),
    "yolov4": Pair(
        note="heterogeneous, published pair: YOLOv4 CSPDarkNet53 -> YOLOv4 MobileNetV3-large, from random weights",
        student={"backbone": "mobilenetv3-large", "neck": "yolov4", "channels": 64, "head": "yolo"},
        teacher={"backbone": "cspdarknet53", "neck": "yolov4", "channels": 128, "head": "yolo"},
        student_steps={"bccd": 1500, "sixray": 1500, "xray": 1500},
        teacher_steps={"bccd": 3000, "sixray": 3000, "xray": 3000},
        size=384, batch=16, student_lr=1e-3, teacher_lr=1e-3,
    ),
}  # fmt: skip

METHODS: dict[str, list[dict[str, Any]]] = {  # [[distill]] entries
    "baseline": [],
    "pkd": [{"method": "pkd", "weight": 0.2}],
    "fgd": [{"method": "fgd"}],
    "mgd": [{"method": "mgd"}],
    "cwd": [{"method": "cwd"}],
    "xfkd": [{"method": "xfkd"}],
    "xfkd_features": [{"method": "xfkd", "options": {"alpha": 1e-2, "beta": 5e-3}}],  # features ten times the masks
    "xfkd_none": [{"method": "xfkd", "options": {"mode": "none"}}],  # nothing of the teacher mixed in
    "xfkd_linear": [{"method": "xfkd", "options": {"rho_schedule": "linear"}}],  # less and less of it
    "fad": [{"method": "fad", "warmup": 100}],
    "nsd": [{"method": "nsd"}],
    "nsd_pos": [{"method": "nsd", "options": {"sample": "both", "pixel_foreground": 3.0}}],
    "regress": [],
}

TUNED: dict[str, tuple[float, ...]] = {  # factors of the weights above, by data set
    "bccd": (0.1, 0.3, 1.0, 3.0),
    "sixray": (0.3, 1.0, 3.0, 10.0, 30.0),
    "xray": (0.3, 1.0, 3.0, 10.0, 30.0),
    "ucas": (0.1, 0.3, 1.0, 3.0),
}
TUNED_ON = {"aerial": "ucas"}  # the weights of synthetic aerial scenes are those that did best on real ones
TUNE_SEED = 100  # one of its own
TUNE_SHARE = {"bccd": 0.3, "sixray": 0.5, "xray": 0.5, "ucas": 0.5}  # of the student's steps
LONGER = "longer"  # the student alone with twice the steps: is the baseline near its plateau?


def _fad(**options: Any) -> list[dict[str, Any]]:
    return [{**METHODS["fad"][0], "options": options}]


def _xfkd(**options: Any) -> list[dict[str, Any]]:
    return [{**METHODS["xfkd"][0], "options": options}]


ABLATIONS: dict[str, list[dict[str, Any]]] = {
    "fad": METHODS["fad"],
    "fad-lsfi": _fad(beta=0.0, gamma=0.0),
    "fad-pcc": _fad(alpha=0.0, gamma=0.0),
    "fad-ssim": _fad(alpha=0.0, beta=0.0),
    "fad-mdc": _fad(alpha=0.0),
    "fad-lsfi_spatial": _fad(beta=0.0, gamma=0.0, lsfi="spatial"),
    "fad-lsfi_channel": _fad(beta=0.0, gamma=0.0, lsfi="channel"),
    "fad-one_scale": _fad(scales=[1]),
    "xfkd": METHODS["xfkd"],
    "xfkd-sum": _xfkd(mode="sum"),
    "xfkd-none": _xfkd(mode="none"),
    "crosskd": [{"method": "crosskd", "weight": 0.3, "warmup": 200}],
}
