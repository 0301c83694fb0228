"""`edgekd status`: what a board serves, what else it keeps, who may sign, what happened last."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import edgekd

from ._board import add_board, board_options
from ._text import plain, size, table

if TYPE_CHECKING:
    import argparse

OK, NOTHING_SERVED = 0, 5


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("status", help="say what a board serves", description=__doc__)
    add_board(parser)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; exit code 5 when nothing whole is in service."""
    found = edgekd.status(args.device, **board_options(args))
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(args, found)
    return OK if found["whole"] else NOTHING_SERVED


def _print(args: argparse.Namespace, found: dict[str, Any]) -> None:
    now = found["in_service"]
    state = "nothing is in service" if now is None else now["release"] + ("" if found["whole"] else ", DAMAGED")
    keys = found["keys"]
    listed = keys if isinstance(keys, str) else ", ".join(f"{name} {key[:16]}" for name, key in keys.items())
    rows = [
        ("in service", state),
        ("before", found["previous"] or "-"),
        ("load", found["model"]),
        ("allowed keys", listed or "none: any bundle is taken"),
        ("flashing", found["flashing"] or "nobody"),
    ]
    if found["trial"]:
        rows.append(
            (
                "trial",
                f"{found['trial'].get('release')} is not committed; if its flash was killed, the next start goes back",
            )
        )
    print(f"{args.device} {args.name}")
    for name, value in rows:
        print(f"  {name:<13}{plain(value)}")
    releases = [_release(item, now) for item in found["releases"]]
    if releases:
        print()
        table(("release", "model", "made", "size", "artifact", "p50", "p99", "flashed by"), releases)
    events = [
        tuple(plain(str(entry.get(key, ""))) for key in ("seq", "time", "who", "step", "state", "detail"))
        for entry in found["journal"]
    ]
    if events:
        print()
        table(("seq", "time (board's clock)", "who", "step", "state", "detail"), events)


def _release(item: dict[str, Any], now: dict[str, Any] | None) -> tuple[str, ...]:
    check = item.get("check") or {}
    mark = " *" if now is not None and item["release"] == now["release"] else ""
    return (
        item["release"][:16] + mark,
        plain(item.get("model", "?")),
        plain(item.get("created") or "-"),
        size(item.get("size_bytes", 0)),
        f"{check.get('target', '-')} {check.get('precision', '')}".rstrip(),
        f"{check['p50_ms']:.2f} ms" if check else "-",
        f"{check['p99_ms']:.2f} ms" if check else "-",
        plain(item.get("flashed_by", "-")),
    )
