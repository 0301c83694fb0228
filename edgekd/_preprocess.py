"""Images as users have them -> `(H, W, C)` uint8 pixels and the order of their channels. Nothing is guessed.

Arrays: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` uint8, colour order as `color` says, alpha ignored, no copy.
Files (path or bytes): in one of FORMATS, turned upright as their EXIF orientation says.
Pillow images: their pixels as they are, so that boxes fit what `image.show()` shows.
16-bit greys: a PNG's scale is fixed by its standard (65535 is white), so its high byte is taken; any other 16-bit or
float image has no scale of its own (12-bit camera data sits in 16-bit files too) and is refused with the line that
converts it.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import ImageError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from PIL import Image as PILImage
    from PIL.ImageFile import ImageFile

MAX_SIDE = 32768  # pixels
ACCEPTED = (
    "a path, the bytes of an image file, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8"
)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of the formats that Pillow knows, those that it decodes by itself; for EPS it would run Ghostscript on the bytes."""
GREY_MODES = ("1", "L", "LA")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
WIDE_MODES = ("I", "F")  # and every "I;16..."


class ImageArray(NamedTuple):
    """An image and what its channels mean.

    Attributes:
        pixels: `(H, W, 1|3|4)` uint8; of an array, a view of it. A fourth channel is alpha.
        order: "rgb" or "bgr".
    """

    pixels: NDArray[np.uint8]
    order: str

    def swaps(self, order: str) -> bool:
        """Whether the channels must be reversed for a network that wants `order`."""
        return self.pixels.shape[2] != 1 and self.order != order


def decode(image: Any, color: str = "bgr") -> ImageArray:
    """Return the pixels of an image; arrays are not copied.

    Args:
        image: path, bytes of an image file, PIL image, or array; see the top of this module.
        color: "bgr" or "rgb": the order of an array's channels. Files and PIL images are RGB by themselves.

    Returns:
        The pixels and their order.

    Raises:
        ImageError: the image is missing, broken, too large, or of a shape or type that would have to be guessed.
        UsageError: `color` is neither "bgr" nor "rgb".
        MissingPackageError: a file or PIL image was given and Pillow is not installed.
    """
    if color not in ("bgr", "rgb"):
        raise UsageError(f"color should be 'bgr' or 'rgb', got {color!r}")
    if isinstance(image, np.ndarray):
        return ImageArray(_from_array(image), color)
    if isinstance(image, (str, os.PathLike)):
        return ImageArray(_from_path(Path(image)), "rgb")
    if isinstance(image, (bytes, bytearray, memoryview)):
        return ImageArray(_from_bytes(bytes(image)), "rgb")
    if type(image).__module__.partition(".")[0] == "PIL":
        return ImageArray(_from_pil(image, "the PIL image"), "rgb")
    raise ImageError(f"cannot read an image from {type(image).__name__}; possible: {ACCEPTED}")


def open_image(source: Path | io.BytesIO) -> ImageFile:
    """Return Pillow's image of a file, of which the header has been read.

    Raises:
        OSError: the file cannot be read, or its format is none of FORMATS.
        Exception: a damaged header raises anything.
    """
    pillow = _pillow()
    try:
        opened: ImageFile = pillow.open(source, formats=FORMATS)
    except pillow.UnidentifiedImageError as error:
        raise pillow.UnidentifiedImageError(f"no image in a format that is read: {', '.join(FORMATS)}") from error
    return opened


def pixel_count(data: bytes) -> int:
    """Return how many pixels an image file has, by its header alone: a small file may hold very many.

    Raises:
        ImageError: as `decode`.
    """
    with _opened(data, "the bytes") as image:
        return image.width * image.height


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, by name; those of its subfolders are left alone.

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ImageError(f"no folder {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        inside = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
        hint = f"; it has the folders {', '.join(inside[:9])}: name one of them" if inside else ""
        raise ImageError(f"no image in the folder {folder} (looked for {', '.join(IMAGE_SUFFIXES)}){hint}")
    return found


def image_files(given: Iterable[str | Path] | str | Path) -> list[Path]:
    """Return the files named, folders replaced by the images in them.

    Raises:
        ImageError: nothing was named, or a folder holds no image.
    """
    named = [Path(given)] if isinstance(given, (str, Path)) else [Path(item) for item in given]
    if not named:
        raise ImageError("no image was named; give files or folders")
    return [file for path in named for file in (images_in(path) if path.is_dir() else [path])]


def to_rgb(image: Any, color: str = "bgr") -> tuple[NDArray[np.uint8], bool]:
    """Return `(H, W, 3)` uint8 RGB, a contiguous copy, and whether the input was BGR; otherwise as `decode`."""
    pixels, order = decode(image, color)
    flipped = order == "bgr"
    planes = [0, 0, 0] if pixels.shape[2] == 1 else [2, 1, 0] if flipped else [0, 1, 2]
    return np.ascontiguousarray(pixels[:, :, planes]), flipped


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint16:
        raise ImageError(
            "the array is uint16, whose scale only you know: give uint8; for full-range data that is "
            "`(image >> 8).astype(np.uint8)`"
        )
    if array.dtype != np.uint8:
        raise ImageError(
            f"the array is {array.dtype}; expected uint8 in 0..255: if it is in 0..1, that is "
            "`(image * 255).round().astype(np.uint8)`"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ImageError(f"the array has shape {array.shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_size(array.shape[1], array.shape[0], "the array")
    return array


def _from_path(path: Path) -> NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"no image at {path}") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}") from error
    return _from_bytes(data, str(path))


def _from_bytes(data: bytes, name: str = "the bytes") -> NDArray[np.uint8]:
    with _opened(data, name) as image:
        from PIL import ImageOps

        file_format = image.format
        ImageOps.exif_transpose(image, in_place=True)  # a copy only of what has to be turned
        return _from_pil(image, name, file_format)


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> Iterator[ImageFile]:
    """Lend an image file of which the header has been read; what it raises, there or in the block, is an ImageError."""
    pillow = _pillow()
    if not data:
        raise ImageError(f"{name}: no image, the file is empty")
    bombs = (pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    try:
        with open_image(io.BytesIO(data)) as image:
            _check_size(image.width, image.height, name)
            yield image
    except ImageError:
        raise
    except bombs as error:
        raise ImageError(
            f"{name}: more pixels than Pillow reads in good faith: {error} If you trust the file: "
            "`PIL.Image.MAX_IMAGE_PIXELS = None` before, or cut it with `edgekd data tile`"
        ) from error
    except pillow.UnidentifiedImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: there is not enough memory for its pixels; give a smaller image") from error
    # A damaged file reaches any decoder and any exception (OSError, SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        raise ImageError(f"{name}: damaged image: {error}") from error


def _from_pil(image: PILImage.Image, name: str, file_format: str | None = None) -> NDArray[np.uint8]:
    if not isinstance(image, _pillow().Image):
        raise ImageError(f"cannot read an image from {type(image).__name__}; possible: {ACCEPTED}")
    _check_size(image.width, image.height, name)
    if image.mode in WIDE_MODES or image.mode.startswith("I;16"):
        return _from_wide(image, name, file_format or image.format)
    wanted = "L" if image.mode in GREY_MODES else "RGB"
    try:
        if "transparency" in image.info:  # Pillow warns when it has to drop it from a palette in one step
            image = image.convert("RGBA")
        pixels = np.asarray(image if image.mode == wanted else image.convert(wanted))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name}: cannot read mode {image.mode}: {error}") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _from_wide(image: PILImage.Image, name: str, file_format: str | None) -> NDArray[np.uint8]:
    if file_format != "PNG":
        raise ImageError(
            f"{name} has mode {image.mode}, whose scale only you know: give uint8, for full-range 16-bit data "
            "`(np.asarray(image) >> 8).astype(np.uint8)`"
        )
    return (np.asarray(image) >> 8).astype(np.uint8)[:, :, None]


def _check_size(width: int, height: int, name: str) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ImageError(f"{name} is {width}x{height} pixels; sides should be in 1..{MAX_SIDE}")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("image files and PIL images need Pillow: pip install pillow") from error
    return Image
