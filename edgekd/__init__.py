"""Distil a big detector into a small one, build it for every chip you own, ship it as one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors, geometry, ops
from ._anomaly_recipe import AnomalyRecipe
from ._build import BuildReport, BuiltArtifact, build
from ._bundle import Bundle
from ._comparison import Comparison
from ._data import LabelReport, data_label, data_lint, data_synth, data_tile
from ._demo import DemoReport, demo
from ._detections import Detections
from ._detector import Detector, DetectorInfo, load
from ._distill import distill
from ._doctor import Health, TargetHealth, doctor
from ._eval import EvalReport, evaluate
from ._export import EngineReport, ExportReport, export, export_engine
from ._flash.fleet import BoardResult as FleetBoard
from ._flash.fleet import FleetReport, flash_fleet
from ._flash.keys import Key, keys_list, keys_new, keys_sign
from ._flash.verbs import FlashReport, Guarded, flash, guard, guard_unit, rollback, status
from ._flash.verbs import Step as FlashStep
from ._import import ImportReport, import_model
from ._inspect import Inspection, inspect
from ._int8.options import Calibration
from ._manifest import Manifest
from ._pick import Budget, PickReport, pick
from ._profile import ProfileComparison, profile, profile_compare, profile_page
from ._profile_receipt import ReceiptReport, profile_receipt
from ._recipe import Recipe
from ._selftest import SelftestCheck, SelftestReport, selftest
from ._serve import ServeReport, serve
from ._session import SessionInfo
from ._set_thresholds import ThresholdsReport, thresholds
from ._train import TrainReport, train
from ._verify import ArtifactReport, VerifyReport, verify
from .importing.heads import GenericHead, Pixels
from .profiling.record import Profile

if TYPE_CHECKING:  # data sets are checked with the training packages, which the facade does not load
    from .training.data.lint_report import LintReport as LintReport

__version__ = "0.1.0"

__all__ = [
    "AnomalyRecipe",
    "ArtifactReport",
    "Budget",
    "BuildReport",
    "BuiltArtifact",
    "Bundle",
    "Calibration",
    "Comparison",
    "DemoReport",
    "Detections",
    "Detector",
    "DetectorInfo",
    "EngineReport",
    "EvalReport",
    "ExportReport",
    "FlashReport",
    "FlashStep",
    "FleetBoard",
    "FleetReport",
    "GenericHead",
    "Guarded",
    "Health",
    "ImportReport",
    "Inspection",
    "Key",
    "LabelReport",
    "Manifest",
    "PickReport",
    "Pixels",
    "Profile",
    "ProfileComparison",
    "ReceiptReport",
    "Recipe",
    "SelftestCheck",
    "SelftestReport",
    "ServeReport",
    "SessionInfo",
    "TargetHealth",
    "ThresholdsReport",
    "TrainReport",
    "VerifyReport",
    "__version__",
    "build",
    "data_label",
    "data_lint",
    "data_synth",
    "data_tile",
    "demo",
    "distill",
    "doctor",
    "errors",
    "evaluate",
    "export",
    "export_engine",
    "flash",
    "flash_fleet",
    "geometry",
    "guard",
    "guard_unit",
    "import_model",
    "inspect",
    "keys_list",
    "keys_new",
    "keys_sign",
    "load",
    "ops",
    "pick",
    "profile",
    "profile_compare",
    "profile_page",
    "profile_receipt",
    "rollback",
    "selftest",
    "serve",
    "status",
    "thresholds",
    "train",
    "verify",
]
