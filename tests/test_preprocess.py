"""Images in every form people have them; what would have to be guessed is refused with the line to type."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageFile

from edgekd._preprocess import FORMATS, MAX_SIDE, decode, pixel_count, to_rgb
from edgekd.errors import ImageError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def _encode(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


PNG = _encode(Image.fromarray(RGB))


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_is_taken_as_it_is_without_a_copy(color, channels) -> None:
    array = np.zeros((5, 7, channels), np.uint8)
    pixels, order = decode(array, color)
    assert (pixels.shape, order) == (array.shape, color)
    assert np.shares_memory(pixels, array)


def test_a_grey_array_gains_an_axis_and_strides_stay() -> None:
    array = np.arange(80, dtype=np.uint8).reshape(8, 10)[::-2, 1::3]
    pixels, _ = decode(array)
    np.testing.assert_array_equal(pixels[:, :, 0], array)
    assert np.shares_memory(pixels, array)


def test_an_array_is_bgr_unless_said_otherwise_and_files_are_rgb() -> None:
    assert decode(RGB).order == "bgr"
    assert decode(PNG).order == "rgb"
    assert decode(PNG, "bgr").order == "rgb"
    assert decode(Image.fromarray(RGB)).order == "rgb"


def test_swaps_says_whether_the_channels_must_be_reversed() -> None:
    assert decode(RGB, "bgr").swaps("rgb")
    assert not decode(RGB, "rgb").swaps("rgb")
    assert not decode(RGB[:, :, 0], "bgr").swaps("rgb")


def test_a_path_a_string_bytes_and_a_pil_image_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "bild ä.png"
    path.write_bytes(PNG)
    for image in (path, str(path), PNG, bytearray(PNG), memoryview(PNG), Image.open(path), Image.fromarray(RGB)):
        np.testing.assert_array_equal(decode(image).pixels, RGB)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_each_mode_of_pillow_gives_what_its_own_conversion_gives(mode) -> None:
    source = Image.fromarray(RGB).convert("RGB").convert({"PA": "P", "RGBX": "RGB"}.get(mode, mode)).convert(mode)
    pixels, _ = decode(source)
    expected = np.asarray(source.convert("RGB"))
    np.testing.assert_array_equal(np.broadcast_to(pixels, expected.shape), expected)


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    image = Image.fromarray(RGB).convert("P")
    data = _encode(image, transparency=bytes(range(250)))
    np.testing.assert_array_equal(decode(data).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_is_turned_upright_by_its_exif_orientation(orientation) -> None:
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 250  # the bright corner is at the top left
    undo = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned = upright.transpose(1, 0, 2)
    undo |= {5: turned, 6: turned[::-1], 7: turned[::-1, ::-1], 8: turned[:, ::-1]}
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(Image.fromarray(np.ascontiguousarray(undo[orientation])), exif=exif)
    np.testing.assert_array_equal(decode(data).pixels, upright)


def test_a_pil_image_is_not_turned_so_that_boxes_fit_what_it_shows() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(_encode(Image.fromarray(RGB), exif=exif)))
    np.testing.assert_array_equal(decode(image).pixels, RGB)


def test_a_16_bit_png_gives_its_high_byte() -> None:
    wide = np.arange(0, 65536, 997, dtype=np.uint16).reshape(6, 11)
    data = _encode(Image.fromarray(wide))
    np.testing.assert_array_equal(decode(data).pixels[:, :, 0], wide >> 8)
    np.testing.assert_array_equal(decode(Image.open(io.BytesIO(data))).pixels[:, :, 0], wide >> 8)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_tiff_without_a_scale_of_its_own_is_refused(dtype) -> None:
    data = _encode(Image.fromarray(np.ones((4, 4), dtype)), "TIFF")
    with pytest.raises(ImageError, match=r"whose scale only you know.*>> 8"):
        decode(data)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.uint16), r"uint16.*\(image >> 8\)\.astype\(np\.uint8\)"),
        (np.zeros((4, 4, 3), np.float32), r"float32; expected uint8.*255"),
        (np.zeros((4, 4, 3), bool), "bool; expected uint8"),
        (np.zeros((4, 4, 3), np.int8), "int8; expected uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((3, 4, 4, 3), np.uint8), r"\(3, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "4x0 pixels"),
        (np.zeros((4, 0), np.uint8), "0x4 pixels"),
        (np.broadcast_to(np.uint8(0), (MAX_SIDE + 1, 2, 3)), f"2x{MAX_SIDE + 1} pixels.*1..{MAX_SIDE}"),
    ],
)
def test_an_array_that_would_have_to_be_guessed_is_refused(array, message) -> None:
    with pytest.raises(ImageError, match=message):
        decode(array)


@pytest.mark.parametrize("other", [None, 5, 1.5, ["a.png"], object()])
def test_something_else_is_refused_with_what_is_possible(other) -> None:
    with pytest.raises(ImageError, match=f"{type(other).__name__}; possible: a path"):
        decode(other)


def test_a_color_that_is_no_order_is_refused() -> None:
    with pytest.raises(UsageError, match="'bgr' or 'rgb', got 'gbr'"):
        decode(RGB, "gbr")


def test_a_missing_file_and_a_folder_are_image_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no image at .*nowhere\.jpg"):
        decode(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="cannot read"):
        decode(tmp_path)
    with pytest.raises(ImageError, match="cannot read"):
        decode("a\0b.png")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"no image at all", PNG[:40]])
def test_bytes_that_are_no_image_are_image_errors(data) -> None:
    with pytest.raises(ImageError, match="the bytes: "):
        decode(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_is_an_image_error(file_format, data) -> None:
    whole = _encode(Image.fromarray(RGB), file_format)
    cut = data.draw(st.integers(0, len(whole)))
    damaged = bytearray(whole[:cut])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        pixels, order = decode(bytes(damaged))
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert order == "rgb"


@pytest.mark.parametrize("file_format", [*FORMATS, "MPO"])
def test_each_format_that_is_promised_is_read(file_format) -> None:
    pixels, _ = decode(_encode(Image.fromarray(RGB), file_format))
    assert pixels.shape == RGB.shape


@pytest.mark.parametrize("file_format", ["EPS", "PCX", "ICO", "TGA"])
def test_other_formats_are_refused_and_no_program_is_started_for_them(file_format, monkeypatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    data = _encode(Image.fromarray(RGB), file_format)
    with pytest.raises(ImageError, match="the bytes: no image in a format that is read: BMP, GIF, JPEG, PNG, PPM"):
        decode(data)


def _png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(
        ImageError, match=r"in good faith: .* `PIL.Image.MAX_IMAGE_PIXELS = None` before, or cut it with `edgekd data"
    ):
        decode(_png_of_size(30000, 30000))
    with pytest.raises(ImageError, match="40000x10 pixels"):
        decode(_png_of_size(40000, 10))


def test_pixels_are_counted_by_the_header_alone() -> None:
    assert pixel_count(PNG) == 35
    assert pixel_count(_png_of_size(9000, 8000)) == 72_000_000
    with pytest.raises(ImageError, match="the bytes: no image in a format"):
        pixel_count(b"no image")


def test_missing_memory_is_not_damage(monkeypatch) -> None:
    def load(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(ImageError, match="the bytes: there is not enough memory for its pixels; give a smaller image"):
        decode(PNG)


def test_upright_file_is_not_copied(monkeypatch) -> None:
    monkeypatch.setattr(Image.Image, "copy", lambda _: pytest.fail("it was copied"))
    np.testing.assert_array_equal(decode(PNG).pixels, RGB)


def test_without_pillow_arrays_work_and_files_say_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert decode(RGB).pixels is RGB
    with pytest.raises(MissingPackageError, match="pip install pillow"):
        decode(PNG)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_to_rgb_gives_a_contiguous_rgb_copy(channels) -> None:
    array = np.random.default_rng(1).integers(0, 256, (6, 8, channels), np.uint8)
    rgb, was_bgr = to_rgb(array, "bgr")
    assert was_bgr
    assert rgb.flags.c_contiguous
    assert not np.shares_memory(rgb, array)
    np.testing.assert_array_equal(rgb, array[:, :, [0, 0, 0] if channels == 1 else [2, 1, 0]])
    assert not np.shares_memory(to_rgb(array, "rgb")[0], array)
    assert to_rgb(PNG)[1] is False
    np.testing.assert_array_equal(to_rgb(PNG)[0], RGB)
