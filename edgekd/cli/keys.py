"""`edgekd keys`: make keys (`new`), say which they are (`list`), sign a bundle (`sign`)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import edgekd

from ._text import table

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its subcommands."""
    parser = subparsers.add_parser("keys", help="make and list keys, sign bundles", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    new = verbs.add_parser("new", help="make an Ed25519 key pair: FILE (secret) and FILE.pub (for boards)")
    new.add_argument("file", help="a new file")
    new.set_defaults(run=run_new)
    listed = verbs.add_parser("list", help="the ids of public keys")
    listed.add_argument("paths", nargs="+", metavar="PATH", help="public keys, or folders of *.pub")
    listed.set_defaults(run=run_list)
    sign = verbs.add_parser("sign", help="sign a bundle; what is built into it afterwards drops the signature")
    sign.add_argument("bundle", help="model.bin")
    sign.add_argument("--key", required=True, metavar="FILE", help="the secret key")
    sign.add_argument("--out", metavar="FILE", help="write here (default: replace the bundle)")
    sign.set_defaults(run=run_sign)
    for verb in (new, listed, sign):
        verb.add_argument("--json", action="store_true", help="print the result as JSON")


def run_new(args: argparse.Namespace) -> int:
    """Make a pair and say where it is."""
    key = edgekd.keys_new(args.file)
    if args.json:
        print(json.dumps(asdict(key)))
    else:
        print(f"{args.file}: secret, keep it here\n{key.path}: key {key.key_id[:16]}, for ROOT/keys/ on each board")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print the ids."""
    found = edgekd.keys_list(args.paths)
    if args.json:
        print(json.dumps([asdict(key) for key in found]))
    else:
        table(("key", "id"), [(key.path, key.key_id) for key in found])
    return 0


def run_sign(args: argparse.Namespace) -> int:
    """Sign and say by whom."""
    key_id = edgekd.keys_sign(args.bundle, args.key, args.out)
    path = args.out or args.bundle
    print(json.dumps({"path": path, "key_id": key_id}) if args.json else f"{path}: signed by key {key_id[:16]}")
    return 0
