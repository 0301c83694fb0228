"""The golden set: exact pixels in, exact outputs kept, and nothing foreign decoded."""

from __future__ import annotations

import dataclasses
import io
import struct
import sys
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgekd import ops
from edgekd._bundle import Bundle
from edgekd._golden import add_golden, golden_outputs, golden_pixels
from edgekd._manifest import InputSpec, Manifest, OutputSpec
from edgekd.errors import CorruptBundleError, ImageError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPEC = InputSpec(height=32, width=48, color="bgr", mean=(10.0, 20.0, 30.0), std=(2.0, 3.0, 4.0))
MANIFEST = Manifest(
    name="toy",
    task="detect",
    classes=("gun", "knife"),
    input=SPEC,
    outputs=(
        OutputSpec(name="the boxes", kind="boxes", shape=(6, 4), layout="xyxy"),
        OutputSpec(name="the scores", kind="scores", shape=(6, 2), activation="sigmoid"),
    ),
)
BUNDLE = Bundle.create(MANIFEST, {"graph.onnx": b"graph"})
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (20, 50, 3), np.uint8), RNG.integers(0, 256, (70, 30, 3), np.uint8)]


def infer(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Return outputs that depend on every pixel."""
    rng = np.random.default_rng(zlib.crc32(pixels.tobytes()))
    return rng.normal(size=(1, 6, 4)).astype(np.float32), rng.random((1, 6, 2), np.float32)


def png(width: int, height: int) -> bytes:
    """Return the start of a PNG that claims a size."""
    head = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + bytes(20)


def with_image(data: bytes) -> Bundle:
    return add_golden(BUNDLE, IMAGES[:1], infer).replace(add={"golden/0.png": data})


def test_golden_set_keeps_pixels_and_outputs(tmp_path: Path) -> None:
    add_golden(BUNDLE, IMAGES, infer).write(tmp_path / "model.bin")
    with Bundle.read(tmp_path / "model.bin") as bundle:
        assert len(bundle.manifest.golden) == 2
        for image, golden in zip(IMAGES, bundle.manifest.golden, strict=True):
            pixels, _ = ops.letterbox(image, 32, 48, swap=True, mean=SPEC.mean, std=SPEC.std, pad=114)
            np.testing.assert_array_equal(golden_pixels(bundle, golden), pixels[None])
            for output, expected in zip(golden_outputs(bundle, golden), infer(pixels[None]), strict=True):
                np.testing.assert_array_equal(output, expected)
                assert output.dtype == np.float32


def test_golden_image_is_a_png_that_anyone_reads() -> None:
    bundle = add_golden(BUNDLE, IMAGES, infer)
    with Image.open(io.BytesIO(bundle.chunk("golden/1.png"))) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), IMAGES[1])


def test_bgr_arrays_and_files_give_the_same_golden_set() -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(file, "PNG")
    by_file = add_golden(BUNDLE, [file.getvalue()], infer)
    by_array = add_golden(BUNDLE, [np.ascontiguousarray(IMAGES[0][:, :, ::-1])], infer, color="bgr")
    assert by_file.digest == by_array.digest == add_golden(BUNDLE, IMAGES[:1], infer).digest


def test_new_golden_set_replaces_the_old_one() -> None:
    two = add_golden(BUNDLE, IMAGES, infer)
    one = add_golden(two, IMAGES[1:], infer)
    assert one.names() == ("golden/0.boxes", "golden/0.png", "golden/0.scores", "graph.onnx", "manifest.json")
    assert one.digest == add_golden(BUNDLE, IMAGES[1:], infer).digest


@pytest.mark.parametrize(
    "outputs",
    [
        (np.zeros((1, 6, 4), np.float32), np.zeros((1, 6, 3), np.float32)),
        (np.zeros((6, 4), np.float32), np.zeros((1, 6, 2), np.float32)),
        (np.full((1, 6, 4), np.nan, np.float32), np.zeros((1, 6, 2), np.float32)),
    ],
)
def test_outputs_that_do_not_fit_the_manifest_are_refused(outputs: tuple[NDArray[np.float32], ...]) -> None:
    with pytest.raises(UsageError, match=r"output the (boxes|scores): expected .*finite; got"):
        add_golden(BUNDLE, IMAGES[:1], lambda _: outputs)


def test_too_large_an_image_is_refused() -> None:
    with pytest.raises(ImageError, match="golden image 0 has 8192x4096 pixels"):
        add_golden(BUNDLE, [np.zeros((4096, 8192, 3), np.uint8)], infer)


def test_chunk_that_is_no_png_is_never_given_to_the_decoder() -> None:
    """Pillow would find out by itself what else this is, Encapsulated PostScript included."""
    jpeg = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(jpeg, "JPEG")
    for data in (b"", b"%!PS-Adobe-3.0 EPSF-3.0", jpeg.getvalue(), b"GIF89a.." + png(5, 5)[8:]):
        bundle = with_image(data)
        with pytest.raises(CorruptBundleError, match=r"golden/0\.png is no PNG"):
            golden_pixels(bundle, bundle.manifest.golden[0])


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (1 << 31, 1), (0, 5), (4097, 4096)])
def test_png_that_claims_too_many_pixels_is_not_decoded(width: int, height: int) -> None:
    bundle = with_image(png(width, height))
    with pytest.raises(CorruptBundleError, match="no PNG of at most 16777216 pixels"):
        golden_pixels(bundle, bundle.manifest.golden[0])


def test_damaged_png_is_a_bundle_error() -> None:
    bundle = with_image(png(30, 30))
    with pytest.raises(CorruptBundleError, match=r"golden image golden/0\.png: "):
        golden_pixels(bundle, bundle.manifest.golden[0])


def test_reference_outputs_that_are_not_finite_are_refused() -> None:
    bundle = add_golden(BUNDLE, IMAGES[:1], infer).replace(add={"golden/0.scores": b"\x00\x00\xc0\x7f" * 12})
    with pytest.raises(CorruptBundleError, match=r"golden/0\.scores holds values that are not finite"):
        golden_outputs(bundle, bundle.manifest.golden[0])


def test_without_pillow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = add_golden(BUNDLE, IMAGES[:1], infer)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match="pip install pillow"):
        add_golden(BUNDLE, IMAGES[:1], infer)
    with pytest.raises(MissingPackageError, match="pip install pillow"):
        golden_pixels(bundle, bundle.manifest.golden[0])


def test_golden_set_follows_the_manifest_when_the_input_changes() -> None:
    bundle = add_golden(BUNDLE, IMAGES[:1], infer)
    wide = bundle.replace(dataclasses.replace(bundle.manifest, input=InputSpec(height=16, width=64)))
    assert golden_pixels(wide, wide.manifest.golden[0]).shape == (1, 3, 16, 64)
