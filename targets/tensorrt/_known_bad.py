"""What is known to go wrong, by version and pattern, and what is done instead: data that one function applies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgekd.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgekd._target import Progress

    from ._runtime import TensorRT

REFUSE, SAY = "refuse", "say"


class KnownBad(NamedTuple):
    """One row.

    Attributes:
        since: first version, (major, minor, patch).
        until: first version that is right again.
        layers: names of `LayerType`, all of which the network must have; empty: any network.
        jetson: whether it concerns boards with L4T only.
        action: `REFUSE` raises, `SAY` tells the progress.
        text: what is wrong and what to do.
        source: who said so.
    """

    since: tuple[int, int, int]
    until: tuple[int, int, int]
    layers: tuple[str, ...]
    jetson: bool
    action: str
    text: str
    source: str


KNOWN_BAD = (
    KnownBad(
        since=(11, 0, 0), until=(11, 4, 1), layers=(), jetson=True, action=REFUSE,
        text="TensorRT 11.0 to 11.4.0 do not support Jetson: install your JetPack's TensorRT or, on AGX Orin and Thor "
        "with JetPack 7.2.2, 11.4.1",
        source="TensorRT's migration guides for Jetson",
    ),
    KnownBad(
        since=(10, 3, 0), until=(10, 4, 0), layers=("QUANTIZE", "TOPK"), jetson=False, action=REFUSE,
        text="TensorRT 10.3 fails an assertion on TopK in a quantized network: build --precision fp16, or take TopK "
        "out of the graph (edgekd's own heads have none)",
        source="reports on JetPack 6.1 and 6.2",
    ),
    KnownBad(
        since=(10, 0, 0), until=(10, 8, 0), layers=("NON_ZERO",), jetson=False, action=SAY,
        text="outputs whose size depends on the data are slow before TensorRT 10.8: a call blocks for some 6.5 ms",
        source="release notes of TensorRT 10.8",
    ),
    KnownBad(
        since=(10, 0, 0), until=(10, 8, 0), layers=("NMS",), jetson=False, action=SAY,
        text="NMS inside the network is slow before TensorRT 10.8: a call blocks for some 6.5 ms; edgekd's is outside",
        source="release notes of TensorRT 10.8",
    ),
)  # fmt: skip


def apply(tensorrt: TensorRT, layers: Collection[str], *, jetson: bool, progress: Progress) -> None:
    """Refuse or say what is known of this version and network; TensorRT for RTX has no rows.

    Args:
        tensorrt: what will build.
        layers: names of the `LayerType` of every layer.
        jetson: whether this is a board with L4T.
        progress: told what is no refusal.

    Raises:
        BuildError: a row refuses.
    """
    if tensorrt.rtx:
        return
    for row in KNOWN_BAD:
        concerned = row.since <= tensorrt.numbers < row.until and (jetson or not row.jetson)
        if concerned and set(row.layers) <= set(layers):
            if row.action == REFUSE:
                raise BuildError(f"{row.text} (this is {tensorrt.version}; source: {row.source})")
            progress(f"known of TensorRT {tensorrt.version}: {row.text}")
