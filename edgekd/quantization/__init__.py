"""From a portable graph and calibration images to one explicit int8 graph; verbs import it inside functions."""

from __future__ import annotations

from .calibrate import Ranges, measure_ranges
from .region import Layer, Region, int8_region
from .trained import trained_scales
from .write import quantized_graph

__all__ = ["Layer", "Ranges", "Region", "int8_region", "measure_ranges", "quantized_graph", "trained_scales"]
