"""`edgekd verify`: run the bundle's golden set on every target that runs here, and compare with the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import edgekd

from ._text import table

if TYPE_CHECKING:
    import argparse

HEAD = ("target", "precision", "computes in", "score diff (bound)", "box or map diff (bound)", "decisions", "result")
OK, FAILED, NOTHING_RAN = 0, 3, 4


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "verify", help="check a bundle's targets against its golden set", description=__doc__
    )
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("--target", action="append", help="only this target; may be given several times (default: all)")
    parser.add_argument(
        "--key", action="append", default=[], metavar="PEM", help="require a signature by this Ed25519 public key"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify, print, and say by the exit code whether all that ran passed."""
    report = edgekd.verify(args.bundle, args.target, public_keys=[_key(name) for name in args.key])
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print(args.bundle, report)
    if not report.passed:
        return FAILED
    return OK if report.ran else NOTHING_RAN


def _key(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise edgekd.errors.UsageError(f"cannot read the key {name}: {error.strerror}") from error


def _print(path: str, report: edgekd.VerifyReport) -> None:
    signed = f", signed by trusted key {report.signed_by[:16]}" if report.signed_by else ""
    print(f"{path}: {report.name}, sha256 {report.digest[:16]}{signed}; golden set of {report.images} images\n")
    table(HEAD, [_row(item) for item in report.artifacts])
    for item in report.artifacts:
        if item.reason:
            print(f"\n{item.target} {item.precision} {item.status}: {item.reason}", end="")
    passed = sum(item.status == "passed" for item in report.artifacts)
    print(f"\n{passed} of {report.ran} artifacts that ran here passed")


def _row(item: edgekd.ArtifactReport) -> tuple[str, ...]:
    if item.session is None or item.decisions is None:
        return (item.target, item.precision, "-", "-", "-", "-", item.status)
    found = item.decisions
    decisions = f"{found.same} of {found.reference} same"
    decisions += f", {found.borderline} borderline" if found.borderline else ""
    decisions += f", {found.different} differ" if found.different else ""
    score_bound = f" ({item.tolerance.score:g})" if item.tolerance else ""
    score = f"{item.score_difference:.1e}{score_bound}"
    return (item.target, item.precision, item.session.compute, score, _second(item), decisions, item.status)


def _second(item: edgekd.ArtifactReport) -> str:
    """Return the difference of boxes or maps, with its bound."""
    bound = f" ({item.tolerance.second()})" if item.tolerance else ""
    of_boxes = item.map_difference is None
    return f"{item.box_difference_px:.4f} px{bound}" if of_boxes else f"{item.map_difference:.1e}{bound}"
