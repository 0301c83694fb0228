"""fp16 and w8a32 artifacts that the golden set refuses: do they find the same objects on validation images?

The golden set bounds the *largest* difference of any score, which a network that amplifies rounding exceeds though its
detections stay: YOLOX-nano in fp16 moves one score of a million by 0.08. The gates of int8 then decide, on images.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import platform
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .._target import load_target
from ..errors import GateError
from .data import judging_images
from .gates import judge
from .options import bounds
from .receipt import gate_rows, golden_row
from .runs import run_set
from .search import start_built, start_portable

if TYPE_CHECKING:
    from .._bundle import Bundle
    from .._session import Session
    from .._target import Built, Progress
    from .._verify import ArtifactReport
    from .data import Judges
    from .options import Calibration
    from .runs import Run


class Judge:
    """The gates of one bundle, for artifacts in other precisions than int8.

    The set is read at once, so that a wrong word costs no build; its pixels, and the float network, when first wanted.

    Args:
        bundle: with the portable graph.
        options: images and bounds.
        tell: told one short line a stage.

    Raises:
        UsageError: no images are named, or they are those that the network was trained or tested on.
        DataError: they cannot be read, or show nothing to find.
    """

    def __init__(self, bundle: Bundle, options: Calibration, tell: Progress) -> None:
        self.bundle, self.options, self.tell = bundle, options, tell
        manifest = bundle.manifest
        self.bounds = bounds(options, anomaly=manifest.task == "anomaly", oriented=manifest.angle is not None)
        self.judges: Judges = judging_images(manifest, options)

    @cached_property
    def float_run(self) -> Run:
        """What the portable graph gives on them."""
        self.tell(f"float network on {len(self.judges.report)} validation images")
        with contextlib.closing(start_portable(self.bundle)) as session:
            return run_set(session, self.bundle.manifest, self.judges.report, whole=False)

    def receipt(self, target: str, precision: str, built: Built, parity: ArtifactReport) -> dict[str, Any]:
        """Return the receipt of an artifact whose gates hold.

        Args:
            target: of the artifact.
            precision: of the artifact.
            built: its files; its stand-in runs where the target cannot.
            parity: its differences on the golden set, which `verify` compares with from now on.

        Raises:
            GateError: a gate does not hold; says what was measured.
            DataError: an image cannot be read.
            SessionError: the engine gave up.
        """
        from ..quantization import FloatGraph

        manifest, before = self.bundle.manifest, self.float_run
        self.tell(f"{target} {precision} on {len(self.judges.report)} validation images")
        with contextlib.closing(self._start(target, precision, built)) as session:
            after = run_set(session, manifest, self.judges.report, whole=False)
        found = judge(manifest, before, after, self.bounds, picks_rows=FloatGraph(self.bundle.graph()).picks_rows)
        listed = "; ".join(str(gate) for gate in found.gates if not gate.passed)
        if listed:
            raise GateError(f"on {len(self.judges.report)} validation images {listed}")
        drop = found.gates[0]
        return {
            "what": f"{precision} {drop.name}",
            "value": drop.value,
            "unit": drop.unit,
            "split": "test" if manifest.task == "anomaly" else "val",
            "target": target,
            "precision": precision,
            "compute": after.session.compute,
            "runtime": after.session.runtime,
            "machine": f"{platform.machine()} {platform.system()}",
            "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "judgement": {
                "passed": True,
                "emulated": after.session.target != target,
                "validation": self.judges.about,
                "gates": gate_rows(found),
                "decisions": vars(found.decisions),
                "golden": golden_row(parity),
            },
        }

    def _start(self, target: str, precision: str, built: Built) -> Session:
        if load_target(target).probe() is None:
            return start_built(self.bundle, target, precision, built)
        assert built.stand_in is not None
        return start_portable(self.bundle.replace(add={str(self.bundle.manifest.graph): built.stand_in}))
