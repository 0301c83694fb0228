"""Detectors: backbones, necks and heads in plain PyTorch."""

from __future__ import annotations

from .build import build_model
from .count import Size, count
from .detector import Detector
from .heads import HeadOutputs
from .weights import load_detector, load_weights
from .weights_report import WeightsReport

__all__ = ["Detector", "HeadOutputs", "Size", "WeightsReport", "build_model", "count", "load_detector", "load_weights"]
