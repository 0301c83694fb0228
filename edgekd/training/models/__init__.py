"""Detectors: backbones, necks and heads in plain PyTorch."""

from __future__ import annotations

from .build import build_model
from .detector import Detector
from .heads import HeadOutputs
from .weights import load_detector, load_weights
from .weights_report import WeightsReport

__all__ = ["Detector", "HeadOutputs", "WeightsReport", "build_model", "load_detector", "load_weights"]
