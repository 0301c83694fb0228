"""The golden set: a few images kept in the bundle with the outputs that the portable graph gave for them in fp32.

Images are PNG, so the pixels are exact; outputs are raw little-endian float32. A target that gives the same outputs on
another machine has the right letterbox, the right weights and the right arithmetic.
"""

from __future__ import annotations

import dataclasses
import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ops
from ._manifest import GoldenImage
from ._preprocess import to_rgb
from .errors import CorruptBundleError, ImageError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ._bundle import Bundle
    from ._manifest import Manifest
    from ._session import Outputs

MAX_PIXELS = 1 << 24  # of a golden image: bounds the memory that a foreign bundle can ask for
_PNG_START = struct.Struct(">8s4x4sII")  # signature, length, type, width, height


def add_golden(
    bundle: Bundle, images: Sequence[Any], infer: Callable[[NDArray[np.float32]], Outputs], color: str = "rgb"
) -> Bundle:
    """Return the bundle with a golden set instead of the one it has.

    Args:
        bundle: with the portable graph.
        images: what `predict` takes; arrays are `(H, W, 3)` uint8 in the order of `color`.
        infer: runs the portable graph in fp32, batch 1, as `Session.infer` does: `(1, 3, H, W)` -> one array an output.
        color: "rgb" or "bgr", of arrays.

    Raises:
        ImageError: an image cannot be used, or has more than 2**24 pixels.
        UsageError: `infer` gave other shapes than the manifest says, or values that are not finite.
    """
    chunks: dict[str, bytes] = {}
    rows = []
    for index, image in enumerate(images):
        rgb, _ = to_rgb(image, color)
        if rgb.shape[0] * rgb.shape[1] > MAX_PIXELS:
            raise ImageError(f"golden image {index} has {rgb.shape[1]}x{rgb.shape[0]} pixels, more than {MAX_PIXELS}")
        name = f"golden/{index}.png"
        chunks[name] = _png(rgb)
        outputs = []
        for spec, output in zip(bundle.manifest.outputs, infer(_placed(rgb, bundle.manifest)), strict=True):
            if output.shape != (1, *spec.shape) or not np.isfinite(output).all():
                bad = "" if np.isfinite(output).all() else " with values that are not finite"
                raise UsageError(f"output {spec.name}: expected {(1, *spec.shape)}, finite; got {output.shape}{bad}")
            outputs.append(f"golden/{index}.{spec.kind}")
            chunks[outputs[-1]] = output.astype("<f4").tobytes()
        rows.append(GoldenImage(image=name, outputs=tuple(outputs)))
    old = {name for golden in bundle.manifest.golden for name in (golden.image, *golden.outputs)}
    return bundle.replace(dataclasses.replace(bundle.manifest, golden=tuple(rows)), chunks, old - set(chunks))


def golden_pixels(bundle: Bundle, golden: GoldenImage) -> NDArray[np.float32]:
    """Return the network's input for a golden image: `(1, 3, H, W)` float32.

    Raises:
        CorruptBundleError: the chunk is no PNG, or one of more than 2**24 pixels.
        MissingPackageError: Pillow is not installed.
    """
    data = bytes(bundle.chunk(golden.image))
    if len(data) < _PNG_START.size:
        raise CorruptBundleError(f"golden image {golden.image} is no PNG")
    signature, kind, width, height = _PNG_START.unpack_from(data)
    if signature != b"\x89PNG\r\n\x1a\n" or kind != b"IHDR" or not 0 < width * height <= MAX_PIXELS:
        raise CorruptBundleError(f"golden image {golden.image} is no PNG of at most {MAX_PIXELS} pixels")
    try:
        rgb, _ = to_rgb(data)
    except ImageError as error:
        raise CorruptBundleError(f"golden image {golden.image}: {error}") from error
    return _placed(rgb, bundle.manifest)


def golden_outputs(bundle: Bundle, golden: GoldenImage) -> Outputs:
    """Return the reference outputs for a golden image, float32, each `(1, *shape)` as `Session.infer` gives them.

    Raises:
        CorruptBundleError: a value is not finite.
    """
    outputs = []
    for spec, name in zip(bundle.manifest.outputs, golden.outputs, strict=True):
        values = np.frombuffer(bundle.chunk(name), "<f4").reshape(1, *spec.shape).astype(np.float32)
        if not np.isfinite(values).all():
            raise CorruptBundleError(f"golden output {name} holds values that are not finite")
        outputs.append(values)
    return tuple(outputs)


def _placed(rgb: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.float32]:
    spec = manifest.input
    pixels, _ = ops.letterbox(
        rgb, spec.height, spec.width, swap=spec.color != "rgb", mean=spec.mean, std=spec.std, pad=spec.pad,
        stretch=manifest.task == "anomaly",
    )  # fmt: skip
    return np.ascontiguousarray(pixels[None])


def _png(rgb: NDArray[np.uint8]) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("a golden set needs Pillow: pip install pillow") from error
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()
