"""`export`: a bundle as an artifact for a fleet that Mender, RAUC or SWUpdate looks after, or as one engine."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bundle import Bundle
from ._container import write_file
from ._flash.verbs import NAME, ROOT
from .errors import BuildError, UsageError

if TYPE_CHECKING:
    from ._export_files import Made
    from ._target import Progress

WORD = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
COMPATIBLE = {"mender": WORD, "rauc": WORD, "swupdate": rf"[A-Za-z][A-Za-z0-9_-]{{0,63}}:{WORD}"}  # its board is a key
MADE = "export.json"  # the report, beside what it is about: a folder of ours, which may be written anew
EXAMPLE = {"mender": "jetson-orin-nano", "rauc": "jetson-orin-nano", "swupdate": "jetson-orin-nano:1.0"}
PACKAGES = {"mender-artifact": "mender-artifact", "rauc": "rauc", "openssl": "openssl"}  # of Debian, by program


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        kind: "mender", "rauc" or "swupdate".
        version: of the artifact.
        artifact: path of what the fleet takes; None: a program that makes it is missing here.
        files: paths of what it is made of.
        commands: that make it, run in the folder of the files; they are in `build.sh` too.
        on_board: what a board needs once.
        missing: what to type where a program is missing; empty: none is.
    """

    kind: str
    version: str
    artifact: str | None
    files: tuple[str, ...]
    commands: tuple[str, ...]
    on_board: str
    missing: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class EngineReport:
    """What `export_engine` wrote.

    Attributes:
        engine: path of TensorRT's engine.
        size_bytes: of it.
        precision: of the artifact that it was made of.
        runtime: TensorRT and its version; no other takes the engine.
        gpu: that it is for.
        input: name, shape without the batch, colour order and range of the letterboxed pixels.
        outputs: shape without the batch, by name, in their order.
        conf: least score, in the engine for good; as are
        iou: the most overlap, and
        max_det: the rows of the outputs.
        batch: largest that it takes.
    """

    engine: str
    size_bytes: int
    precision: str
    runtime: str
    gpu: str
    input: dict[str, Any]
    outputs: dict[str, tuple[int, ...]]
    conf: float
    iou: float
    max_det: int
    batch: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def export_engine(
    path: str | Path,
    out: str | Path,
    *,
    precision: str = "auto",
    conf: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    batch: int = 1,
    progress: Progress | None = None,
) -> EngineReport:
    """Write one TensorRT engine from pixels to detections, on the GPU that it is for: for DeepStream, Triton, C++.

    It takes letterboxed pixels, `(B, 3, H, W)` float32, 0 to 255, and gives `num_detections` `(B, 1)` int32,
    `detection_boxes` `(B, max_det, 4 or 5)` float32 in pixels of the network, `detection_scores` `(B, max_det)`
    float32 and `detection_classes` `(B, max_det)` int32, padded with 0 and -1. Suppression is a kernel of ours inside
    the engine, with the bits of `predict`'s. Wants TensorRT 10.9 or later.

    Args:
        path: `model.bin` with an artifact of target tensorrt.
        out: file to write.
        precision: "fp32", "fp16", "int8", or "auto", which chooses as `load`.
        conf: least score; None: as the bundle says, like the next two.
        iou: most overlap.
        max_det: rows of the outputs.
        batch: largest batch.
        progress: told one short line a stage.

    Raises:
        UsageError: a number out of its range, the bundle has no such artifact, or there is no place for `out`.
        BundleError: the file is not a sound bundle, or `out` cannot be written.
        BuildError: no detector, or this TensorRT cannot hold the kernel, or made no engine.
        MissingPackageError: no onnx.
        TargetUnavailableError: no GPU, no TensorRT, no nvcc, or too little memory.
    """
    from ._container import check_place
    from ._select import choose

    target = Path(out)
    check_place(target)
    with Bundle.read(path) as bundle:
        chosen = choose(bundle, "tensorrt", precision)
        defaults, spec = bundle.manifest.predict, bundle.manifest.input
        wish = {
            "conf": defaults.conf if conf is None else conf, "iou": defaults.iou if iou is None else iou,
            "max_det": defaults.max_det if max_det is None else max_det,
            "max_candidates": defaults.max_candidates, "batch": batch,
        }  # fmt: skip
        _check_wish(wish)
        make: Any = chosen.target
        plan, runtime, gpu = make.single_engine(
            bundle, chosen.artifact, wish, target.resolve().parent, progress or (lambda _: None)
        )
        columns = bundle.manifest.outputs[0].shape[1]
    write_file(target, [plan])
    rows = int(wish["max_det"])
    outputs = {
        "num_detections": (1,), "detection_boxes": (rows, columns), "detection_scores": (rows,),
        "detection_classes": (rows,),
    }  # fmt: skip
    taken = {"name": spec.name, "shape": (3, spec.height, spec.width), "color": spec.color, "range": (0, 255)}
    return EngineReport(
        str(target), len(plan), chosen.artifact.precision, runtime, gpu, taken, outputs,
        float(wish["conf"]), float(wish["iou"]), rows, batch,
    )  # fmt: skip


def _check_wish(wish: dict[str, float | int]) -> None:
    """Refuse what the kernel in the engine could not check any more.

    Raises:
        UsageError: a number is out of its range.
    """
    ranges = {"conf": (0, 1), "iou": (0, 1), "max_det": (1, 4096), "max_candidates": (1, 4096), "batch": (1, 64)}
    for name, (low, high) in ranges.items():
        if not low <= wish[name] <= high:
            raise UsageError(f"{name} should be {low} to {high} in an engine, got {wish[name]}")


def export(
    path: str | Path,
    to: str,
    out: str | Path,
    *,
    compatible: str,
    version: str | None = None,
    name: str = NAME,
    root: str = ROOT,
    python: str = "python3",
    restart: str | None = None,
    health: str | None = None,
    max_p99_ms: float | None = None,
    max_slowdown: float | None = None,
    cert: str | None = None,
    key: str | None = None,
) -> ExportReport:
    """Write what a fleet manager needs to bring a bundle into service by `edgekd flash` on each board itself.

    Args:
        path: `model.bin`.
        to: "mender", "rauc" or "swupdate".
        out: folder to write; made if it is not there.
        compatible: boards that take it: Mender's device type, RAUC's compatible, SWUpdate's BOARD:REVISION.
        version: of the artifact; None: the model's name and the beginning of the bundle's digest.
        name: of the model on the board, as in `flash`.
        root: folder on the board, as in `flash`.
        python: interpreter on the board that has edgekd.
        restart: as in `flash`.
        health: as in `flash`.
        max_p99_ms: as in `flash`.
        max_slowdown: as in `flash`; None: its default.
        cert: file of the signer's certificate (PEM); RAUC needs it.
        key: file of the signer's private key (PEM), or for RAUC a PKCS#11 address; RAUC needs it, the others may.

    Raises:
        UsageError: another fleet manager, a word that it would not take, a name or root that no board has, a limit that
            no gate could hold, no key where one is needed, or a folder that holds something else.
        BundleError: the file is not a sound bundle.
        BuildError: the program that makes the artifact failed; with its words.
    """
    from ._export_files import KINDS, Plan
    from ._flash.host import check_limits

    check_limits({"max_p99_ms": max_p99_ms, "max_slowdown": max_slowdown})
    if to not in KINDS:
        raise UsageError(f"no fleet manager {to!r}; possible: {', '.join(KINDS)}")
    if not re.fullmatch(COMPATIBLE[to], compatible):
        raise UsageError(f"--compatible {compatible}: {to} expects something like {EXAMPLE[to]}")
    _check_signer(to, cert, key)
    _check_place(name, root)
    _check_folder(Path(out))
    with Bundle.read(path) as bundle:
        stem = re.sub(r"[^A-Za-z0-9._+-]", "-", bundle.manifest.name).lstrip("._+-")[:48] or "model"
        wanted = version if version is not None else f"{stem}-{bundle.digest[:12]}"
    if not re.fullmatch(WORD, wanted):
        raise UsageError(f"--artifact-version {wanted}: letters, digits and ._+- only, at most 64")
    where = ["--name", name, "--root", root, "--python", python]
    limits = {"--restart": restart, "--health": health, "--max-p99": max_p99_ms, "--max-slowdown": max_slowdown}
    given = [
        word for option, value in limits.items() if value is not None
        for word in (option, f"{value:g}" if isinstance(value, float | int) else value)
    ]  # fmt: skip
    program = [python, "-m", "edgekd.cli.main"]
    plan = Plan(
        wanted, compatible, [*program, "flash", "$MODEL", "local", *where, *given],
        [*program, "rollback", "local", *where, *([] if restart is None else ["--restart", restart])],
        _absolute(cert), _absolute(key),
    )  # fmt: skip
    return _write(to, KINDS[to](plan, Path(path).read_bytes()), Path(out), wanted)


def _check_signer(to: str, cert: str | None, key: str | None) -> None:
    if to == "rauc" and (cert is None or key is None):
        raise UsageError("RAUC bundles are always signed: --cert cert.pem --key key.pem")
    if to == "swupdate" and (cert is None) != (key is None):
        raise UsageError("a signature needs both: --cert cert.pem --key key.pem")
    if to == "mender" and cert is not None:
        raise UsageError("Mender signs by a key alone: leave --cert out")
    for file in (cert, key):
        if file is not None and not file.startswith("pkcs11:") and not Path(file).is_file():
            raise UsageError(f"there is no file {file}")


def _check_place(name: str, root: str) -> None:
    """Refuse here what every board would refuse."""
    from ._flash.store import Store
    from .device import Disk

    if not root.startswith(("/", "~")):
        raise UsageError(f"--root should be an absolute path on the board, or begin with ~; got {root!r}")
    Store(Path(root), name, Disk())


def _check_folder(folder: Path) -> None:
    """Refuse a folder of the user's own: files of the same names would be lost."""
    if folder.exists() and not (folder / MADE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is no empty folder, and no export lies in it: name another with --out")


def _absolute(file: str | None) -> str:
    return "" if file is None else file if file.startswith("pkcs11:") else str(Path(file).resolve())


def _write(to: str, made: Made, folder: Path, version: str) -> ExportReport:
    import shlex
    import shutil

    files = dict(made.files)
    commands = tuple(shlex.join(command) for command in made.commands)
    build = "\n".join(["#!/bin/sh", 'cd "$(dirname "$0")" && set -e', *commands, ""])
    if commands:
        files["build.sh"] = build.encode()
    lacking = [command[0] for command in made.commands if shutil.which(command[0]) is None]
    missing = ""
    if lacking:
        packages = " ".join(PACKAGES[program] for program in lacking)
        missing = f"{', '.join(lacking)} is not installed: apt install {packages}, then give the command again"
    paths = tuple(str(folder / name) for name in files)
    report = ExportReport(to, version, None, paths, commands, made.on_board, missing)
    try:
        _note(report, folder)  # first: a folder in which something failed is ours all the same
        for name, content in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, [content])
            if content.startswith(b"#!"):
                target.chmod(0o755)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
    if not lacking:
        _run(made, folder)
        report = replace(report, artifact=str(folder / made.artifact))
        _note(report, folder)
    return report


def _note(report: ExportReport, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / MADE, [json.dumps(report.to_dict(), indent=2).encode()])


def _run(made: Made, folder: Path) -> None:
    """Run the commands, and whatever is left to do without one."""
    import shlex
    import subprocess

    (folder / made.artifact).unlink(missing_ok=True)  # RAUC does not overwrite
    for command in made.commands:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()
            raise BuildError(f"{command[0]} failed: {said[-1]}\n  it was: {shlex.join(command)}")
    if made.finish is not None:
        signed = {name: (folder / name).read_bytes() for name in made.signed_files}
        write_file(folder / made.artifact, [made.finish({**made.files, **signed})])
