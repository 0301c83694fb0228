"""What a file that is no bundle looks like, from its first bytes. For messages only: nothing is parsed by it."""

from __future__ import annotations

import re

HINT = "a bundle is what `edgekd train`, `edgekd distill` and `edgekd build` write"

_STARTS = (
    (rb"PK(?:\x03\x04|\x05\x06)", "a zip archive (PyTorch .pt and Keras .keras files are zips)"),
    (rb"\x7fELF", "an ELF program or library"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG image"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (rb"\x80[\x02-\x05]", "a Python pickle"),
    (rb"....TFL3", "a TFLite model"),
    (rb"p?ftrt|ptrt", "a TensorRT engine"),
    (rb"..\x00\x00\{", "a TensorRT engine with a metadata header (as Ultralytics writes)"),
    (rb"...\x00\x00\x00\x00\x00\{", "a safetensors file"),
    (rb"\x08[\x01-\x14](?:[\x12\x1a\x22\x32\x3a\x42]|\x28[\x00-\x7f])", "an ONNX model"),
    (rb"\s*<\?xml", "an XML file (perhaps an OpenVINO model)"),
    (rb"\s*[{\[]", "a JSON file"),
)
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")


def describe(head: bytes) -> str:
    """Say what a file that starts with `head` (some hundred bytes) seems to be, and where bundles come from."""
    return f"it {_kind(head)}; {HINT}"


def _kind(head: bytes) -> str:
    if not head:
        return "is empty"
    for pattern, name in _STARTS:
        if re.match(pattern, head, re.DOTALL):
            return f"looks like {name}"
    if _TEXT.fullmatch(head):
        return "looks like a text file"
    return f"starts with the bytes {head[:8].hex(' ')}"
