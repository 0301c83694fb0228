"""What `build` does for int8: one plan for all targets, one search each, a receipt, and the page."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from typing import TYPE_CHECKING, Any

from .._build import BuiltArtifact, with_artifact
from .._manifest import Artifact
from .._verify import measure_artifact
from ..errors import BuildError, EdgekdError, GateError, SessionError
from .data import calibration_images, judging_images
from .options import bounds
from .receipt import int8_row
from .search import REFERENCE, Plan, search

if TYPE_CHECKING:
    from pathlib import Path

    from .._build import Pair
    from .._bundle import Bundle
    from .._manifest import Manifest
    from .._target import Progress
    from .._verify import ArtifactReport, Samples
    from .options import Calibration
    from .search import Found


class Int8Builder:
    """Builds int8 artifacts of one bundle: images are read and ranges measured once, for all targets.

    Args:
        bundle: with the portable graph.
        options: images and bounds.
        page: where to write the report; None: none.
        tell: told one short line a stage.

    Raises:
        UsageError: images that may not calibrate or judge, or none are named.
        DataError: images that cannot be read, or are too few.
        GateError: the network has no layer that could be int8.
    """

    def __init__(self, bundle: Bundle, options: Calibration, page: Path | None, tell: Progress) -> None:
        manifest = bundle.manifest
        judges = judging_images(manifest, options)  # before the slower choice: it may be refused
        chosen = calibration_images(manifest, options, tell)
        limits = bounds(options, anomaly=manifest.task == "anomaly", oriented=manifest.angle is not None)
        self.plan = Plan(bundle, chosen, judges, limits, options.ranges, tell)
        self.page = page
        self.rows: list[dict[str, Any]] = []

    def build_one(
        self, bundle: Bundle, pair: Pair, samples: Samples, tell: Progress
    ) -> tuple[Bundle, BuiltArtifact | BuildError | GateError]:
        """Return the bundle with the int8 artifact and its row, or the bundle as it was and what went wrong."""
        del tell  # the plan tells
        target, precision = pair
        start = time.perf_counter()
        try:
            found = search(self.plan, target)
        except (BuildError, GateError) as error:
            return bundle, type(error)(f"{target} {precision}: {error}")
        except SessionError as error:
            return bundle, BuildError(f"{target} {precision}: the engine does not run here: {error}")
        except EdgekdError as error:  # an image that cannot be read; what else was built is kept
            return bundle, GateError(f"{target} {precision} could not be judged: {error}")
        if not found.reported.passed:
            listed = "; ".join(str(gate) for gate in found.reported.gates if not gate.passed)
            return bundle, GateError(
                f"{target} {precision}: the gates hold on the images that the search for layers looked at, not on the "
                f"others: {listed}"
            )
        candidate, artifact = with_artifact(bundle, pair, found.built)
        parity = measure_artifact(candidate, artifact, samples)
        golden = self._emulated(found, samples) if found.emulated else parity
        problem = "" if golden.measured else golden.reason or "it gave what is not finite"
        if parity.status == "failed" or problem:
            return bundle, GateError(f"{target} {precision} failed the golden set: {parity.reason or problem}")
        date = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        receipt = int8_row(self.plan, found, golden, date)
        self._report(bundle.manifest, receipt)
        size = sum(len(content) for content in found.built.files.values())
        if parity.status == "reported":  # what was measured is the bound from now on
            parity = dataclasses.replace(parity, status="passed", reason="")
        row = BuiltArtifact(target, precision, size, time.perf_counter() - start, parity, receipt)
        bare = _without_receipt(candidate, target)
        manifest = dataclasses.replace(bare.manifest, receipts=(*bare.manifest.receipts, receipt))
        return bare.replace(manifest), row

    def _emulated(self, found: Found, samples: Samples) -> ArtifactReport:
        """Measure the golden set on what stood in for the target: `verify` on the device compares with that."""
        bundle = self.plan.bundle
        graph = self.plan.quantization(found.floating).graph
        artifact = Artifact(target=REFERENCE, precision="int8", files={})
        return measure_artifact(bundle.replace(add={str(bundle.manifest.graph): graph}), artifact, samples)

    def _report(self, manifest: Manifest, receipt: dict[str, Any]) -> None:
        """Write the page anew with what has been built so far: a later target may fail."""
        self.rows.append(receipt)
        if self.page is not None:
            from .page import write_page

            write_page(self.page, manifest, self.rows)


def _without_receipt(bundle: Bundle, target: str) -> Bundle:
    """Return the bundle without an earlier int8 receipt of this target."""
    rows = tuple(row for row in bundle.manifest.receipts if not ("quantization" in row and row.get("target") == target))
    return bundle.replace(dataclasses.replace(bundle.manifest, receipts=rows))
