"""Ways to spoil a bundle: each is a function of a random generator and returns the bytes of a file.

Those that repair the hashes afterwards reach the checks behind the hashes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd._bundle import Bundle
from edgekd._container import (
    COUNT,
    FIELDS,
    HEADER_BYTES,
    MAGIC,
    PAGE,
    ROW,
    Chunk,
    Signature,
    compose,
    encode_header,
    encode_toc,
    layout,
    toc_bytes,
)
from edgekd._golden import add_golden
from edgekd._manifest import Artifact, InputSpec, Manifest, OutputSpec

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = bytes(32)
NUMBERS = (
    0, 1, 2, 63, 64, 65, 255, 256, PAGE - 1, PAGE, PAGE + 1, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63,
    (1 << 64) - 1,
)  # fmt: skip
NAMES = (
    b"", b".", b"..", b"../x", b"/etc/passwd", b"a/../../b", b"C:\\x", b"a\\b", b"a\0b", b"a\n", b"\xff\xfe",
    "ä".encode(), "a．b".encode(), "\u202ex".encode(), b"x" * 129, b"x" * 60000, b"manifest.json", b"MANIFEST.JSON",
    b"graph.onnx", b"golden/0.png",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 0.5, 1e308, -1e-320, 2**63, 10**25, "", " ", "x", "\x1b[2J", "\u202e", "\ud800", "../x",
    "a" * 5000, [], {}, [[]] * 50, {"a": {"b": {}}}, ["gun", "gun"], ["gun"] * 20000, [1e9, 1, 1],
)  # fmt: skip
FOREIGN = (
    b"PK\x03\x04",
    b"\x7fELF",
    b"\x89PNG\r\n\x1a\n",
    b"\x08\x08\x12\x01x",
    b"\x80\x04",
    b"",
    MAGIC[:5],
    b"<?xml ",
    b"....TFL3",
)


def sample() -> Bundle:
    """Return a small bundle that has everything a bundle can have."""
    manifest = Manifest(
        name="fuzz",
        task="detect",
        classes=("gun", "knife"),
        input=InputSpec(height=32, width=48),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(8, 4), layout="xyxy"),
            OutputSpec(name="scores", kind="scores", shape=(8, 2), activation="sigmoid"),
        ),
        artifacts=(
            Artifact(
                target="openvino",
                precision="fp32",
                files={"m.xml": "ov/m.xml", "m.bin": "ov/m.bin"},
                tools={"openvino": "1"},
            ),
            Artifact(
                target="tflite",
                precision="fp16",
                files={"m.tflite": "tf/m.tflite"},
                options={"threads": [1, 2.5, None]},
            ),
        ),
        receipts=({"what": "AP50", "value": 0.5, "unit": "%"},),
        recipe={"train": {"steps": 5}},
        provenance={"teacher": {"sha256": "00" * 32}},
    )
    rng = np.random.default_rng(0)
    chunks = {
        "graph.onnx": rng.bytes(300),
        "ov/m.xml": rng.bytes(900),
        "ov/m.bin": rng.bytes(PAGE + 100),
        "tf/m.tflite": rng.bytes(900),
    }
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    outputs = rng.random((1, 8, 4), np.float32), rng.random((1, 8, 2), np.float32)
    bundle = add_golden(Bundle.create(manifest, chunks), [image], lambda _: outputs)
    return bundle.sign(KEY)


class Mutators:
    """The sample, and `all`: name -> mutator."""

    def __init__(self) -> None:
        """Lay the sample out."""
        bundle = sample()
        self.rows = bundle.toc
        self.signature = bundle.signature
        self.contents = {name: bytes(bundle.chunk(name)) for name in bundle.names()}
        self.whole = b"".join(
            compose(self.rows, {key: memoryview(value) for key, value in self.contents.items()}, self.signature)
        )
        self.body = self.whole[HEADER_BYTES + toc_bytes(self.contents) :]
        self.manifest = json.loads(self.contents["manifest.json"])
        self.all: dict[str, Callable[[np.random.Generator], bytes]] = {
            "bytes": self.spoil_bytes,
            "length": self.spoil_length,
            "header, hash repaired": self.spoil_header,
            "rows, hashes repaired": self.spoil_rows,
            "table bytes, hashes repaired": self.spoil_table,
            "padding and body, hashes repaired": self.spoil_body,
            "manifest bytes, hashes repaired": self.spoil_manifest_bytes,
            "manifest values, hashes repaired": self.spoil_manifest,
            "JSON bombs, hashes repaired": self.bomb,
            "contents, hashes repaired": self.spoil_contents,
            "golden set, hashes repaired": self.spoil_golden,
            "foreign": self.foreign,
        }

    def spoil_bytes(self, rng: np.random.Generator) -> bytes:
        """Change anything anywhere, or in the header and table alone."""
        return spoiled(self.whole, rng, reach=int(rng.choice([HEADER_BYTES, 1500, len(self.whole)])))

    def spoil_length(self, rng: np.random.Generator) -> bytes:
        """Cut, lengthen, double."""
        cut = int(rng.integers(len(self.whole) + 1))
        return (self.whole[:cut], self.whole + rng.bytes(1 + cut % 999), self.whole[cut:], self.whole * 2)[
            rng.integers(4)
        ]

    def spoil_header(self, rng: np.random.Generator) -> bytes:
        """Change fields of the header."""
        fields = list(FIELDS.unpack_from(self.whole))
        for _ in range(rng.integers(1, 3)):
            index = int(rng.integers(1, len(fields)))
            old = fields[index]
            size = 32 if index in (1, 2) else 64
            fields[index] = (
                near(rng, size)
                if isinstance(old, int)
                else rng.bytes(len(old))
                if rng.random() < 0.5
                else bytes(len(old))
            )
        packed = FIELDS.pack(*fields)
        return packed + hashlib.sha256(packed).digest() + self.whole[HEADER_BYTES:]

    def spoil_rows(self, rng: np.random.Generator) -> bytes:
        """Change fields of rows; drop, repeat and rename rows."""
        rows = [
            [row.offset, row.length, row.alignment, bytes.fromhex(row.sha256), row.name.encode()] for row in self.rows
        ]
        for _ in range(rng.integers(1, 4)):
            row = rows[rng.integers(len(rows))]
            other = rows[rng.integers(len(rows))]
            kind = rng.integers(7)
            if kind == 0:
                row[4] = NAMES[rng.integers(len(NAMES))]
            elif kind == 1:
                row[3] = other[3]
            elif kind == 2:
                row[0], row[1] = other[0], other[1]
            elif kind == 3:
                rows.insert(int(rng.integers(len(rows))), list(row))
            elif kind == 4 and len(rows) > 1:
                rows.remove(row)
            else:
                field = int(rng.integers(3))
                row[field] = near(rng, 32 if field == 2 else 64, int(row[field]))
        count = len(rows) if rng.random() < 0.9 else near(rng, 32)
        return self.forged(COUNT.pack(count) + b"".join(ROW.pack(*row[:4], len(row[4])) + row[4] for row in rows))

    def spoil_table(self, rng: np.random.Generator) -> bytes:
        """Change the table's bytes."""
        return self.forged(spoiled(encode_toc(self.rows), rng))

    def spoil_body(self, rng: np.random.Generator) -> bytes:
        """Change what lies behind the table."""
        return self.forged(encode_toc(self.rows), spoiled(self.body, rng))

    def spoil_manifest_bytes(self, rng: np.random.Generator) -> bytes:
        """Change the manifest's bytes."""
        return self.rebuilt({"manifest.json": spoiled(self.contents["manifest.json"], rng)})

    def spoil_manifest(self, rng: np.random.Generator) -> bytes:
        """Change values of the manifest."""
        raw = copy.deepcopy(self.manifest)
        for _ in range(rng.integers(1, 4)):
            inner: Any = raw
            while True:
                keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
                key = keys[rng.integers(len(keys))]
                if not isinstance(inner[key], (dict, list)) or not inner[key] or rng.random() < 0.3:
                    break
                inner = inner[key]
            if rng.random() < 0.2:
                del inner[key]
            elif rng.random() < 0.2 and isinstance(inner, dict):
                inner["extra"] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
            else:
                inner[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
            if not raw:
                break
        return self.rebuilt({"manifest.json": json.dumps(raw).encode()})

    def bomb(self, rng: np.random.Generator) -> bytes:
        """Put JSON that is deep, wide or long in place of the manifest."""
        count = int(rng.integers(1, 60_000 if rng.random() < 0.1 else 600))
        deep = count % 40
        bombs = (
            b"[" * count, b'{"a":' * count, b"[" + b"[]," * count + b"[]]", b'{"format":' + b"9" * count + b"}",
            b'"' + b'\\"' * count, b" " * (1 << 20) + b"{}", b'{"a":1,' * count, b'"' * count,
            b'{"name":"' + b"\\u0000" * count + b'"}', b"1e" + b"9" * count, b"-" * count,
            b'{"' + b'a":{"' * deep + b'b":1' + b"}" * (deep + 1), b"\\" * count + b"[" * count, b"\xef\xbb\xbf{}",
        )  # fmt: skip
        return self.rebuilt({"manifest.json": bombs[rng.integers(len(bombs))]})

    def spoil_contents(self, rng: np.random.Generator) -> bytes:
        """Swap, drop and add chunks."""
        names = list(self.contents)
        first, second = names[rng.integers(len(names))], names[rng.integers(len(names))]
        changes: dict[str, bytes | None] = {first: self.contents[second]}
        if rng.random() < 0.3:
            changes[second] = None
        if rng.random() < 0.3:
            changes["spare/" + "x" * int(rng.integers(1, 140))] = b"?"
        return self.rebuilt(changes)

    def spoil_golden(self, rng: np.random.Generator) -> bytes:
        """Change the golden set's image or numbers."""
        name = ("golden/0.png", "golden/0.png", "golden/0.boxes", "golden/0.scores")[rng.integers(4)]
        data = self.contents[name]
        if name.endswith("png"):
            return self.rebuilt({name: spoiled(data, rng, reach=int(rng.choice([40, len(data)])))})
        values = np.frombuffer(data, "<f4").copy()
        values[rng.integers(len(values))] = rng.choice([np.nan, np.inf, 1e38])
        return self.rebuilt({name: values.tobytes()})

    def foreign(self, rng: np.random.Generator) -> bytes:
        """Make another kind of file, or the start of a bundle with anything behind it."""
        start = FOREIGN[rng.integers(len(FOREIGN))]
        kind = rng.integers(3)
        tail = rng.bytes(int(rng.integers(600))) if kind else self.whole
        return start + tail if kind < 2 else MAGIC + tail

    def forged(self, toc: bytes, body: bytes | None = None) -> bytes:
        """Return a file with this table of contents, whose lengths and hashes are right."""
        body = self.body if body is None else body
        return encode_header(toc, HEADER_BYTES + len(toc) + len(body), self.signature) + toc + body

    def rebuilt(self, changes: dict[str, bytes | None]) -> bytes:
        """Return a sound container with other contents; None drops a chunk."""
        merged: dict[str, bytes | None] = {**self.contents, **changes}
        contents = {name: data for name, data in merged.items() if data is not None}
        rows = layout({name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()})
        return joined(rows, {name: memoryview(data) for name, data in contents.items()}, self.signature)


def joined(rows: tuple[Chunk, ...], data: dict[str, memoryview], signature: Signature | None) -> bytes:
    """Return a container's bytes."""
    return b"".join(compose(rows, data, signature))


def near(rng: np.random.Generator, bits: int, value: int = 0) -> int:
    """Return a number that breaks things: a border, one next to `value`, or anything."""
    choices = (
        int(NUMBERS[rng.integers(len(NUMBERS))]),
        value + int(rng.integers(-65, 66)),
        value ^ 1 << int(rng.integers(bits)),
    )
    return choices[rng.integers(3)] % (1 << bits)


def spoiled(data: bytes, rng: np.random.Generator, reach: int | None = None) -> bytes:
    """Return data with bits flipped, stretches cut, copied, zeroed or replaced, within the first `reach` bytes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        limit = max(1, min(reach or len(changed), len(changed)))
        start = int(rng.integers(limit))
        stop = min(len(changed), start + int(rng.choice([1, 2, 8, 64, 1000])))
        kind = rng.integers(6)
        if kind == 0 and changed:
            changed[min(start, len(changed) - 1)] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del changed[start:stop]
        elif kind == 2:
            source = int(rng.integers(limit))
            changed[start:stop] = data[source : source + stop - start]
        elif kind == 3:
            changed[start:start] = rng.bytes(stop - start)
        elif kind == 4:
            changed[start:stop] = bytes(stop - start)
        else:
            changed[start:stop] = rng.bytes(stop - start)
    return bytes(changed)
