"""`edgekd inspect`: what a bundle holds, without running anything of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import edgekd

from ._comparison import show_comparisons
from ._int8 import show_int8, show_judgement
from ._text import plain, size, table

if TYPE_CHECKING:
    import argparse

    from edgekd._manifest import Manifest

CLASSES_SHOWN = 12
SHOWN_APART = {"comparison", "judgement", "quantization"}  # receipts with tables of their own


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("inspect", help="say what a bundle holds", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("--chunks", action="store_true", help="also list the table of contents")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the bundle and print what it holds."""
    found = edgekd.inspect(args.bundle)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
        return 0
    _summary(found)
    _artifacts(found)
    _receipts(found)
    _facts("provenance", found.manifest.provenance)
    if found.manifest.recipe is not None:
        _facts("recipe", found.manifest.recipe)
    if args.chunks:
        _chunks(found)
    return 0


def _summary(found: edgekd.Inspection) -> None:
    manifest, spec = found.manifest, found.manifest.input
    names = ", ".join(manifest.classes[:CLASSES_SHOWN]) + (", ..." if len(manifest.classes) > CLASSES_SHOWN else "")
    numbers = " ".join(f"{value:g}" for value in spec.mean), " ".join(f"{value:g}" for value in spec.std)
    rows = [
        ("file", f"{found.path}  {size(found.size_bytes)}, {len(found.chunks)} chunks, every hash right"),
        ("contents", f"sha256 {found.digest}"),
        (
            "signature",
            f"by key {found.signed_by[:16]}, not checked (edgekd verify --key)" if found.signed_by else "none",
        ),
        ("name", manifest.name),
        (
            "task",
            f"{manifest.task}, {len(manifest.classes)} class{'' if len(manifest.classes) == 1 else 'es'}: {names}",
        ),
        (
            "input",
            f"{spec.name} {spec.height}x{spec.width} px (height x width) {spec.color} {spec.layout} {spec.dtype}",
        ),
        ("", f"mean {numbers[0]}, std {numbers[1]}, pad {spec.pad}"),
    ]
    for output in manifest.outputs:
        words = " ".join(word for word in (output.layout, output.activation) if word)
        rows.append(("output", f"{output.name} ({', '.join(map(str, output.shape))}) {output.kind} {words}".rstrip()))
    rows.append(_decided(manifest))
    rows.append(("golden set", f"{len(manifest.golden)} images, {size(_used(found, 'golden [0-9]+'))}"))
    rows.append(
        ("written by", f"edgekd {manifest.edgekd or '?'}, {manifest.created or 'no date'}, format {manifest.format}")
    )
    for name, value in rows:
        print(f"{name:<11}{value}")


def _decided(manifest: Manifest) -> tuple[str, str]:
    """Return what turns outputs into decisions."""
    found, limits = manifest.thresholds, manifest.predict
    if found is None:
        return "predict", f"conf {limits.conf:g}, iou {limits.iou:g}, max_det {limits.max_det}"
    shares = ["by hand" if share is None else f"alpha {share:g}" for share in (found.alpha, found.pixel_alpha)]
    said = f"image {found.image:.4g} ({shares[0]}), pixel {found.pixel:.4g} ({shares[1]})"
    fitted = f", from {found.images} normal images" if shares != ["by hand", "by hand"] else ""
    return "thresholds", f"{said}{fitted}; blur {found.sigma:g} px of the map"


def _artifacts(found: edgekd.Inspection) -> None:
    rows = [("portable", "-", "-", "none: imported, so there is nothing to build from")]
    if found.manifest.graph is not None:
        rows = [("portable", "fp32", size(_used(found, "portable graph")), "ONNX")]
    for item in found.manifest.artifacts:
        tools = ", ".join(f"{name} {version}" for name, version in item.tools.items())
        rows.append((item.target, item.precision, size(_used(found, f"{item.target} {item.precision}")), tools))
    print()
    table(("target", "precision", "size", "built with"), rows)


def _receipts(found: edgekd.Inspection) -> None:
    rows = []
    for receipt in found.manifest.receipts:
        if SHOWN_APART & receipt.keys():
            continue
        others = {key: value for key, value in receipt.items() if key not in ("what", "value", "unit")}
        unit = receipt.get("unit")
        value = f"{receipt['value']:g}" + (f" {plain(unit)}" if unit is not None else "")
        rows.append(
            (receipt["what"], value, "  ".join(f"{plain(key)}={plain(value)}" for key, value in others.items()))
        )
    if rows:
        print()
        table(("receipt", "value", "measured"), rows)
    for receipt in found.manifest.receipts:
        if "quantization" in receipt:
            show_int8(receipt)
        elif "judgement" in receipt:
            show_judgement(receipt)
    show_comparisons(edgekd.Comparison.from_dict(row) for row in found.manifest.receipts if "comparison" in row)


def _facts(title: str, facts: dict[str, object], indent: str = "  ") -> None:
    """Print nested facts, one a line."""
    if indent == "  ":
        print(f"\n{title}" if facts else f"\n{title}: none")
    for key, value in facts.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(index): item for index, item in enumerate(value, 1)}  # as teachers and [[distill]] are
        if isinstance(value, dict) and value:
            print(f"{indent}{plain(key)}")
            _facts(title, value, indent + "  ")
        else:
            print(f"{indent}{plain(key)}: {plain(value)}")


def _chunks(found: edgekd.Inspection) -> None:
    rows = []
    for chunk in sorted(found.chunks, key=lambda item: (item.offset, item.name)):
        use = ", ".join(found.uses.get(chunk.name, ("not used",)))
        rows.append((chunk.name, str(chunk.offset), size(chunk.length), chunk.sha256[:16], use))
    print()
    table(("chunk", "offset", "size", "sha256", "for"), rows)


def _used(found: edgekd.Inspection, purpose: str) -> int:
    """Return the bytes of the chunks whose use matches a pattern; what they share counts once."""
    chunks = {
        chunk.sha256: chunk.length
        for chunk in found.chunks
        if any(re.fullmatch(purpose, use) for use in found.uses.get(chunk.name, ()))
    }
    return sum(chunks.values())
