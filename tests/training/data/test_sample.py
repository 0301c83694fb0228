"""Decoding of training images."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import DataError
from edgekd.training.data.files import header_size
from edgekd.training.data.sample import Sample

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_)
ORIENTATION = 0x0112


def load(path: Path) -> np.ndarray:
    return Sample(path, (1, 1), *NOTHING).load()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_any_eight_bit_mode_loads_as_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(path)
    found = load(path)
    assert (found.shape, found.dtype) == ((6, 8, 3), np.uint8)
    assert found.min() >= 250


def test_palette_with_transparent_bytes_loads_without_warning(tmp_path: Path) -> None:
    image = Image.new("P", (8, 6))
    image.putpalette([9, 8, 7] * 256)
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path / "a.png")[0, 0].tolist() == [9, 8, 7]


def test_sixteen_bit_png_loads_its_high_byte(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert load(tmp_path / "a.png")[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [255] * 3]


def test_sixteen_bit_tiff_raises(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="whose scale only you know"):
        load(tmp_path / "a.tif")


@pytest.mark.parametrize(("orientation", "size"), [(1, (8, 6)), (3, (8, 6)), (6, (6, 8)), (8, (6, 8))])
def test_camera_orientation_is_applied_as_at_runtime(orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
    from edgekd._preprocess import to_rgb

    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:3, :4] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = load(tmp_path / "a.png")
    assert found.shape == (size[1], size[0], 3)
    assert header_size(tmp_path / "a.png") == size
    np.testing.assert_array_equal(found, to_rgb(tmp_path / "a.png")[0])


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"text", b"BM" + b"\xff" * 60])
def test_damaged_file_raises_naming_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    for read in (load, header_size):
        with pytest.raises(DataError, match=r"cannot read the image .*a.png"):
            read(tmp_path / "a.png")


def test_format_that_is_not_read_raises_with_those_that_are(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", "EPS")
    for read in (load, header_size):
        with pytest.raises(DataError, match=r"cannot read the image .*a\.png: .* BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"):
            read(tmp_path / "a.png")


def test_cut_off_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="truncated"):
        load(path)


def test_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the image"):
        load(tmp_path / "none.png")
