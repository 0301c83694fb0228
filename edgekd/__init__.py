"""Distil a big detector into a small one, build it for every chip you own, ship it as one file."""

from __future__ import annotations

from . import errors, geometry
from ._build import BuildReport, BuiltArtifact, build
from ._bundle import Bundle
from ._detections import Detections
from ._detector import Detector, load
from ._doctor import Health, TargetHealth, doctor
from ._inspect import Inspection, inspect
from ._manifest import Manifest
from ._recipe import Recipe
from ._verify import ArtifactReport, VerifyReport, verify

__version__ = "0.1.0"

__all__ = [
    "ArtifactReport",
    "BuildReport",
    "BuiltArtifact",
    "Bundle",
    "Detections",
    "Detector",
    "Health",
    "Inspection",
    "Manifest",
    "Recipe",
    "TargetHealth",
    "VerifyReport",
    "__version__",
    "build",
    "doctor",
    "errors",
    "geometry",
    "inspect",
    "load",
    "verify",
]
