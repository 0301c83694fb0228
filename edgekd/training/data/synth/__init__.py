"""Seeded synthetic data sets: baggage scans (xray), aerial pictures (aerial), inspected surfaces (surface)."""

from __future__ import annotations

from .annotations import Annotations
from .generate import KINDS, generate, scene

__all__ = ["KINDS", "Annotations", "generate", "scene"]
