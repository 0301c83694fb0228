"""A finished detector whose network is its exported graph, rounded to int8: what quantization-aware training trains."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..errors import BuildError
from ..quantization.calibrate import measure_limits, measure_ranges
from ..quantization.graph import FloatGraph
from ..quantization.region import int8_region
from .export import export_onnx
from .models import Detector, HeadOutputs
from .models.detector import MadeDetector
from .models.heads.head import SharedTower
from .quantized_graph import SYMMETRIC, QuantizedGraph
from .teacher import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

OUTPUTS = ("boxes", "scores")
ESTIMATOR = "mse"  # of the ranges that training starts from


class QuantizedDetector(MadeDetector):
    """A detector that computes what the int8 graph computes; losses and decoding are those of the head it came from.

    Args:
        detector: finished; it is left as it is.
        images: `(K, 3, H, W)` float32, as the network sees them: the first ranges are those of its tensors on these.
        grammar: one of `quantized_graph.GRAMMARS`.
        floating: weights of layers that stay in floating point.

    Attributes:
        graph: the network, whose weights are trained.

    Raises:
        BuildError: the detector cannot be exported, or an operator has no translation.
    """

    def __init__(
        self, detector: Detector, images: NDArray[np.float32], grammar: str, floating: Collection[str] = ()
    ) -> None:
        nn.Module.__init__(self)  # a detector by its members; there is no backbone and no neck to build it from
        self.config, self.input, self.weights = detector.config, detector.input, detector.weights
        self.num_classes, self.box_columns = detector.num_classes, detector.box_columns
        self.strides, self.channels = detector.strides, detector.channels
        shown = _Shown(detector)
        found = FloatGraph(export_onnx(shown, detector.input, outputs=(*OUTPUTS, *shown.names)))
        region = int8_region(found, floating)
        if not region.layers:
            raise BuildError("the graph has no layer that can be int8")
        if grammar == SYMMETRIC:
            ranges: dict[str, Any] = dict(measure_ranges(found, region, images).scales(region, ESTIMATOR))
        else:
            ranges = dict(measure_limits(found, region, images))
        self.floating = frozenset(floating)
        self.made_of = {"grammar": grammar, "state_sha256": fingerprint(detector)}
        if floating:
            self.made_of["floating"] = ", ".join(sorted(floating))
        self.graph = QuantizedGraph(found, region, ranges, grammar)
        self.head = _without_layers(detector.head)
        for tower in shown.towers:
            setattr(self.head, tower, _Tower(self.graph, shown.neck, tower, len(shown.towers[tower].convs)))
        self._neck, self._maps = shown.neck, shown.maps

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the neck's outputs, as `Detector.features`, before the head's layers round them."""
        return self.graph.run({self.graph.image: images}, self._neck)

    def head_outputs(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Return what the head predicts on the neck's outputs, not decoded; float32, as the int8 graph has them."""
        flat = self.graph.run(
            dict(zip(self._neck, features, strict=True)), [name for names in self._maps for name in names]
        )
        found = iter(flat)
        return HeadOutputs(*(tuple(next(found) for _ in names) for names in self._maps))

    def portable(self) -> bytes:
        """Return the graph for a bundle: float32, with the weights as they stand."""
        return self.graph.portable(OUTPUTS)


class _Shown(nn.Module):
    """A detector that also returns its neck's maps and what its head predicts, so that the graph has names for them."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).cpu().float().eval()
        size = detector.input
        with torch.no_grad():
            features = self.detector.features(torch.zeros(1, 3, size.height, size.width))
            outputs = self.detector.head_outputs(features)
        self.neck = tuple(f"neck_{level}" for level in range(len(features)))
        self.maps = tuple(
            tuple(f"head_{field}_{level}" for level in range(len(maps)))
            for field, maps in zip(HeadOutputs._fields, outputs, strict=True)
        )
        self.towers = {
            name: each for name, each in self.detector.head.named_children() if isinstance(each, SharedTower)
        }
        self.inside = {
            _inside(name, level, index): norm
            for name, tower in self.towers.items()
            for level, norms in enumerate(tower.norms)
            for index, norm in enumerate(cast("nn.ModuleList", norms))
        }
        self.names = (*self.neck, *(name for names in self.maps for name in names), *self.inside)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return boxes, scores, the neck's maps, the head's, field by field, and what its towers' convolutions give."""
        seen: dict[str, Tensor] = {}
        hooks = [norm.register_forward_hook(_keeping(seen, name)) for name, norm in self.inside.items()]
        features = self.detector.features(images)
        outputs = self.detector.head_outputs(features)
        for hook in hooks:
            hook.remove()
        flat = (item for maps in outputs for item in maps)
        return (*self.detector.head.decode(outputs), *features, *flat, *(seen[name] for name in self.inside))


class _Tower(nn.Module):
    """A tower of a head, as far as `crosskd` looks at it: `SharedTower.before`, on the rounded graph."""

    def __init__(self, graph: QuantizedGraph, neck: Sequence[str], name: str, depth: int) -> None:
        super().__init__()
        self.convs = range(depth)
        self._graph = (graph,)  # no child: its weights are the detector's
        self._neck, self._name = tuple(neck), name

    def before(self, feature: Tensor, level: int, count: int) -> Tensor:
        """Run the first `count` convolutions of a level, the last one's activation left out."""
        if not count:
            return feature
        (found,) = self._graph[0].run({self._neck[level]: feature}, [_inside(self._name, level, count - 1)])
        return found


def _inside(tower: str, level: int, index: int) -> str:
    return f"{tower}_{level}_{index}"


def _keeping(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    """Return a hook that keeps a copy of an output; the activation behind it overwrites the output itself."""

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen[name] = output.clone()

    return keep


def _without_layers(head: Any) -> Any:
    """Return a copy of a head that computes losses and decodes, but has no layers of its own to predict with."""
    bare = copy.deepcopy(head).cpu()
    for name, _ in list(bare.named_children()):
        delattr(bare, name)
    return bare
