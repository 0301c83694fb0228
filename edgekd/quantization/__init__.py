"""From a portable graph and calibration images to one explicit int8 graph; verbs import it inside functions."""

from __future__ import annotations

from .calibrate import Ranges, measure_ranges
from .graph import FloatGraph
from .region import Layer, Region, int8_region, layers_of
from .trained import trained_scales
from .write import quantized_graph, weight_only_graph

__all__ = [
    "FloatGraph",
    "Layer",
    "Ranges",
    "Region",
    "int8_region",
    "layers_of",
    "measure_ranges",
    "quantized_graph",
    "trained_scales",
    "weight_only_graph",
]
