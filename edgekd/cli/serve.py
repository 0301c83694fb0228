"""`edgekd serve`: a bundle behind HTTP, with metrics, and a page that shows what it finds."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import edgekd

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("serve", help="answer over HTTP", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("--device", default="auto", help="as in predict (default auto)")
    parser.add_argument("--precision", default="auto", help="as in predict (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine (default: its own choice)")
    parser.add_argument("--mode", default="latency", help="latency, or throughput (default latency)")
    parser.add_argument("--cache", metavar="DIR", help="keep what the engine compiles here, so that it starts faster")
    parser.add_argument("--host", default="127.0.0.1", help="any but loopback needs a token (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default 8000)")
    parser.add_argument("--token-file", metavar="FILE", help="who asks must send the first line of this file")
    parser.add_argument("--queue", type=int, default=16, help="pictures under way at most (default 16)")
    parser.add_argument("--max-body-mb", type=number, default=10.0, metavar="MB", help="of one picture (default 10)")
    parser.add_argument("--max-megapixels", type=number, default=50.0, metavar="MP", help="of one picture (default 50)")
    parser.add_argument(
        "--timeout-ms", type=number, default=10_000, metavar="MS", help="for one picture (default 10000)"
    )
    parser.add_argument("--json", action="store_true", help="print the address, and at the end the counts, as JSON")
    parser.set_defaults(run=run)


def number(text: str) -> float:
    """Read a number that is finite; for argparse, which names this function in its error."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""

    def ready(url: str) -> None:
        print(json.dumps({"url": url}) if args.json else f"{args.bundle} on {url}  (Ctrl-C ends)", flush=True)

    found = edgekd.serve(
        args.bundle, device=args.device, precision=args.precision, threads=args.threads, mode=args.mode,
        cache=args.cache, host=args.host, port=args.port, token=_token(args.token_file), queue=args.queue,
        max_body_bytes=round(args.max_body_mb * 2**20), max_pixels=round(args.max_megapixels * 1e6),
        timeout_ms=args.timeout_ms, ready=ready,
    )  # fmt: skip
    if args.json:
        print(json.dumps(found.to_dict()))
    else:
        counts = f"{found.accepted} pictures accepted, {found.answered} answered, {found.rejected} rejected"
        print(counts, file=sys.stderr)
    return 0


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise edgekd.errors.UsageError(f"cannot read the token file {path}: {why}") from error
    return lines[0].strip() if lines else ""
