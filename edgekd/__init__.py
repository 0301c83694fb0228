"""Distil a big detector into a small one, build it for every chip you own, ship it as one file."""

from __future__ import annotations

from . import errors, geometry
from ._bundle import Bundle
from ._detections import Detections
from ._detector import Detector, load
from ._inspect import Inspection, inspect
from ._manifest import Manifest
from ._recipe import Recipe
from ._verify import ArtifactReport, VerifyReport, verify

__version__ = "0.1.0"

__all__ = [
    "ArtifactReport",
    "Bundle",
    "Detections",
    "Detector",
    "Inspection",
    "Manifest",
    "Recipe",
    "VerifyReport",
    "__version__",
    "errors",
    "geometry",
    "inspect",
    "load",
    "verify",
]
