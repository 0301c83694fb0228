"""Time by layer, where the runtime tells it, and the student's module that each layer comes from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import ops
from .._select import start_chosen
from .._session import LayeredSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from .._bundle import Bundle
    from .._manifest import InputSpec

NODE = re.compile(r"/[A-Za-z_][\w-]*(?:[./][\w-]+)*")  # a path in a layer's name: "/backbone/stem/conv/Conv_output_0"
OPERATION = re.compile(r"[A-Z][A-Za-z0-9]*(_\d+)?(_output_\d+)?(_nchwc)?")  # of ONNX: "Conv", "Conv_1_output_0"
NETWORK, RUNTIME = "(network)", "(runtime)"


class Layer(NamedTuple):
    """One layer, as in `Profile.layers`.

    Attributes:
        name: the runtime's.
        kind: the runtime's.
        module: dotted path of the module that its first node comes from; "(network)": of none in particular, such as
            decoding; "(runtime)": the runtime added it.
        ms: mean.
    """

    name: str
    kind: str
    module: str
    ms: float


def layer_times(
    bundle: Bundle, device: str, precision: str, threads: int, image: NDArray[np.uint8], runs: int
) -> tuple[list[Layer], str]:
    """Start the artifact that `load` would choose once more, and let its runtime time the layers.

    Args:
        bundle: stays open.
        device: as in `load`.
        precision: as in `load`.
        threads: as in `load`.
        image: `(H, W, 3)` uint8 RGB, to show.
        runs: of the network, to take the mean of.

    Returns:
        The layers, and why there are none.
    """
    session = start_chosen(bundle, device, precision, threads=threads).session
    try:
        if not isinstance(session, LayeredSession):
            return [], f"{session.info.runtime} tells no times by layer from Python"
        found = session.layer_times(_pixels(image, bundle.manifest.input, bundle.manifest.task), runs)
    finally:
        session.close()
    return [Layer(item.name, item.kind, module_of(item.name), item.ms) for item in found], ""


def module_of(name: str) -> str:
    """Return the module that a layer's name tells of; of several the first, which did the work before the fusion."""
    found = NODE.search(name.replace("...", " "))
    if found is None:
        return RUNTIME
    parts = re.split(r"[./]", found[0].strip("/"))
    ends = [index for index, part in enumerate(parts) if OPERATION.fullmatch(part)]
    return ".".join(parts[: ends[0] if ends else -1]) or NETWORK  # what a runtime adds stands behind the operation


def by_module(layers: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return milliseconds by part of the network, largest first: two levels of modules, and a number behind them."""
    sums: dict[str, float] = {}
    for layer in layers:
        parts = str(layer["module"]).split(".")
        part = ".".join(parts[: 3 if len(parts) > 2 and parts[2].isdigit() else 2])
        sums[part] = sums.get(part, 0.0) + float(layer["ms"])
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _pixels(image: NDArray[np.uint8], spec: InputSpec, task: str) -> NDArray[np.float32]:
    """Return network input `(1, 3, H, W)`, as the detector makes it."""
    pixels = np.empty((1, 3, spec.height, spec.width), np.float32)
    ops.letterbox(
        image, spec.height, spec.width, swap=spec.color == "bgr", mean=spec.mean, std=spec.std, pad=spec.pad,
        out=pixels[0], stretch=task == "anomaly",
    )  # fmt: skip
    return pixels
