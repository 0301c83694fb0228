"""The one input of somebody else's network: where its channels are, and which size its images have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Sides = Sequence[int | None]  # of a tensor; None: open


def channels_come_last(sides: Sides, name: str, path: Path) -> bool:
    """Return whether an input is `(1, H, W, 3)`, and not `(1, 3, H, W)`.

    Args:
        sides: of the input, batch first; the batch may be open.
        name: of the input, for the message.
        path: of the file, for the message.

    Raises:
        UsageError: it is neither, or could be both.
    """
    if len(sides) != 4 or (sides[1] == 3) == (sides[3] == 3) or sides[0] not in (1, None):
        raise UsageError(
            f"input {name} {list(sides)} of {path} is no (1, 3, H, W), (1, H, W, 3) or the same with any batch"
        )
    return sides[3] == 3


def image_size(sides: Sides, channels_last: bool, asked: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """Return height and width of the images that a network is built for.

    Args:
        sides: of its input; height and width may be open.
        channels_last: as `channels_come_last` says.
        asked: height and width; None: those that the file names.
        path: of the file, for the message.

    Raises:
        UsageError: the file names none, or others.
    """
    held = sides[1:3] if channels_last else sides[2:4]
    if asked is None:
        if None in held:
            raise UsageError(f"{path} takes images of any size; say which it is to be built for: --size 640 or 480x640")
        return held[0] or 0, held[1] or 0
    for got, want, what in zip(held, asked, ("height", "width"), strict=True):
        if got not in (None, want):
            raise UsageError(f"{path} takes images of {what} {got}, asked for {want}; leave --size out")
    return asked


def inner_shape(sides: Sides, name: str, path: Path) -> tuple[int, ...]:
    """Return the shape of an output without its batch.

    Raises:
        UsageError: it depends on the image.
    """
    inner = [side for side in sides[1:] if side is not None]
    if not sides or len(inner) != len(sides) - 1:
        raise UsageError(
            f"output {name} of {path} has the shape {list(sides)}, which depends on the image; export the model with a "
            "fixed input size and without selecting or suppressing boxes"
        )
    return tuple(inner)


def suppresses(found: Sequence[str], path: Path) -> UsageError:
    """Return the error for a network that suppresses boxes by itself, with these operators."""
    return UsageError(
        f"{path} suppresses boxes by itself ({', '.join(found)}); edgekd does that on every target alike: export "
        "the model without it (nms=False, end2end=False, or the outputs before it)"
    )
