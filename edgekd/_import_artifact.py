"""A file of a target's own format becomes the one artifact of a bundle, which then has no portable graph.

The golden set is what the file as it is gave, decoded by ONNX Runtime: the artifact, whose network was joined with the
decoding, is judged by it as a build is by the portable graph.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ._build import BuiltArtifact, artifact_of, chunks_of, with_receipts
from ._bundle import Bundle
from ._import_request import digests, refuse_to_overwrite
from ._target import HeadDecoder, ImportingTarget, load_target
from ._verify import check_artifact, golden_samples
from .errors import GateError, TargetUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ._import_request import Request
    from ._session import Outputs


def from_file(path: Path, out: Path, asked: Request, target: str) -> tuple[Bundle, dict[str, tuple[int, ...]]]:
    """Return a bundle with one artifact and a golden set, and the outputs of the file.

    Args:
        path: of the file.
        out: of the bundle, which may not be one of the files that are read.
        asked: of the import.
        target: an `ImportingTarget`, by name.

    Raises:
        UsageError: the file or the head do not fit.
        BuildError: they cannot be joined.
        GateError: joined, they differ from the file.
        TargetUnavailableError: the target cannot build here.
    """
    from ._import import with_golden
    from .importing.decoder import decoder, run_decoder

    module = load_target(target)
    assert isinstance(module, ImportingTarget)
    reason = module.probe_build()
    if reason is not None:
        raise TargetUnavailableError(f"cannot import {path} here: {reason}")
    network = module.read_foreign(path, asked.size)
    refuse_to_overwrite(out, network.files)
    decoding = asked.head.decoding(network.outputs, len(asked.classes), network.height, network.width)
    graph, boxes, scores = decoder(network.outputs, decoding)
    start = time.perf_counter()
    built = network.join(HeadDecoder(graph, decoding.takes, decoding.layout))
    seconds = time.perf_counter() - start
    first, *others = network.files
    imported = {
        "file": first.name,
        "sha256": digests([first])[first.name],
        **({"beside": digests(others)} if others else {}),
        "golden": f"what the file gave on {network.runtime}, decoded by ONNX Runtime",
    }
    artifact = artifact_of((target, network.precision), built)
    manifest = asked.manifest(
        (network.height, network.width), (boxes, scores), decoding.layout, imported, graph=None, artifacts=(artifact,)
    )

    def infer(pixels: NDArray[np.float32]) -> Outputs:
        found = network.infer(pixels)
        return tuple(run_decoder(graph, {name: found[output] for name, output in decoding.takes.items()}))

    bundle = with_golden(Bundle.create(manifest, chunks_of(artifact, built)), asked, infer)
    parity = check_artifact(bundle, artifact, golden_samples(bundle))
    if parity.status != "passed":
        raise GateError(f"joined with the decoding of its head, {path} is another network: {parity.reason}")
    size = sum(len(content) for content in built.files.values())
    row = BuiltArtifact(target, network.precision, size, seconds, parity)
    return bundle.replace(with_receipts(bundle.manifest, row)), network.outputs
