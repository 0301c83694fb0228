"""Compiled models kept in a folder, so that a load need not compile.

A file is one line of JSON (what it was made of and where, and the SHA-256 of the rest) and then what OpenVINO exported.
Whatever does not fit, byte for byte, is compiled again: a cache can be deleted or cut off at any time. It is as trusted
as the folder: who can write there chooses what is loaded.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import openvino

from edgekd._container import write_file
from edgekd._session import check_outputs
from edgekd.errors import BundleError, SessionError

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact

LOG = logging.getLogger("edgekd.cache")


class Kept:
    """The file of one compiled model: another network, OpenVINO, chip or setting is another file."""

    def __init__(
        self, core: Any, bundle: Bundle, artifact: Artifact, plugin: str, config: dict[str, Any], folder: Path
    ) -> None:
        """Ask the bundle for the hashes that it checked, and OpenVINO for the chip."""
        hashes = {chunk.name: chunk.sha256 for chunk in bundle.toc}
        made_of = {
            "files": {name: hashes[chunk] for name, chunk in artifact.files.items()},
            "openvino": openvino.__version__,
            "chip": core.get_property(plugin, "FULL_DEVICE_NAME"),
            "arithmetic": sorted(core.get_property(plugin, "OPTIMIZATION_CAPABILITIES")),
            "plugin": plugin,
            "config": config,
        }
        self._key = json.dumps(made_of, sort_keys=True)
        self._core, self._plugin, self._config, self._outputs = core, plugin, config, bundle.manifest.outputs
        short = hashlib.sha256(self._key.encode()).hexdigest()[:16]
        self.path = folder / f"{artifact.precision}-{plugin.lower()}-{short}.openvino"

    def read(self) -> Any | None:
        """Return the compiled model; None where there is none, or none that can be used."""
        try:
            head, _, blob = self.path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if head != self._head(blob):
            LOG.warning("%s is damaged; the model is compiled again", self.path)
            return None
        try:
            compiled = self._core.import_model(io.BytesIO(blob), self._plugin, self._config)
            got = {name: tuple(item.shape)[1:] for item in compiled.outputs for name in item.names}
            check_outputs(got, self._outputs, "delete it")
        except (RuntimeError, SessionError) as error:
            LOG.warning("%s is not taken; the model is compiled again: %s", self.path, error)
            return None
        return compiled

    def write(self, compiled: Any) -> None:
        """Keep a compiled model; where that cannot be, say so in the log and go on without."""
        try:
            blob = compiled.export_model().getvalue()
            write_file(self.path, [self._head(blob), b"\n", blob])
        except (RuntimeError, BundleError) as error:
            LOG.warning("the compiled model is not kept, so the next load compiles it again: %s", error)

    def _head(self, blob: bytes) -> bytes:
        return json.dumps({"key": self._key, "sha256": hashlib.sha256(blob).hexdigest()}).encode()
