"""`Calibration`: what a user decides about int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

ESTIMATORS = ("mse", "minmax", "percentile", "entropy")  # of ranges; the first is preferred where several are as good
FEWEST_IMAGES = 8  # fewer say little about ranges
MOST_IMAGES = 4096


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a network may become int8, and what it may lose by that.

    Attributes:
        train: set whose images calibrate, as a recipe's data.train names one (of an anomaly set, its folder), or a
            folder of bare images; None: the training images of the bundle's recipe.
        val: set that the gates are measured on; None: the recipe's validation images, or where `train` is a folder
            with splits, its "val". Of an anomaly network: the folder that holds "test".
        format: of both; "auto": found out.
        images: most images that calibrate, at least 8.
        max_drop: points of AP, or of image AUROC, that may be lost; None: 0.5, 0.7 for oriented boxes, 0.3 for AUROC.
        ranges: estimator of ranges: "mse", "minmax", "percentile" or "entropy"; "auto": the one whose outputs are
            nearest to the float ones.
        force: also take sets that the network was tested on, or that it was not trained on.
    """

    train: str | Path | None = None
    val: str | Path | None = None
    format: str = "auto"
    images: int = 128
    max_drop: float | None = None
    ranges: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            UsageError: naming the argument, what was got and what is possible.
        """
        if not FEWEST_IMAGES <= self.images <= MOST_IMAGES:
            raise UsageError(f"images should be {FEWEST_IMAGES} to {MOST_IMAGES}, got {self.images}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(f"max_drop should be 0 to 100 points, got {self.max_drop}")
        if self.ranges not in ("auto", *ESTIMATORS):
            raise UsageError(f"ranges should be auto, {', '.join(ESTIMATORS)}; got {self.ranges!r}")


@dataclass(frozen=True)
class Bounds:
    """What int8 may lose; every gate has to hold.

    Attributes:
        drop: points of AP (100 times the fraction), or of image AUROC.
        score_shift: mean difference of the scores of what the float network finds; of anomaly networks, of the
            calibrated scores of all images.
        agreement: share of decisions at the bundle's thresholds that stay, those aside that a score shift within
            `score_shift` explains.
        angle_deg: mean difference of the angles of oriented boxes, degrees.
    """

    drop: float
    score_shift: float = 0.02
    agreement: float = 0.99
    angle_deg: float = 1.0


def bounds(options: Calibration, *, anomaly: bool, oriented: bool) -> Bounds:
    """Return the bounds for a kind of network."""
    usual = 0.3 if anomaly else 0.7 if oriented else 0.5
    return Bounds(usual if options.max_drop is None else options.max_drop)
