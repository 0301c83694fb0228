"""Which artifact of a bundle runs here: the choice of `load`, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ._manifest import Artifact
from ._receipts import int8_receipt, needs_receipt, refusal
from ._session import check_threads
from ._target import Target, load_target, target_names
from .errors import GateError, TargetUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ._bundle import Bundle
    from ._session import Session

PRECISION_ORDER = (
    "fp32",
    "fp16",
)  # "auto" keeps the accuracy that was measured; int8 goes first where a receipt says so


@dataclass(frozen=True)
class Choice:
    """The artifact to run, its target, and why."""

    target: Target
    artifact: Artifact
    reason: str
    discarded: tuple[str, ...]


class Started(NamedTuple):
    """A session that runs, the choice behind it, and what starts another like it."""

    choice: Choice
    session: Session
    start: Callable[[], Session]


def start_chosen(
    bundle: Bundle,
    device: str,
    precision: str,
    *,
    threads: int = 0,
    mode: str = "latency",
    cache: Path | None = None,
    unsafe: bool = False,
) -> Started:
    """Start the first artifact whose packages can be imported; arguments and errors as `edgekd.load`.

    `probe` looks whether a package is there; that it is damaged, or lacks a library, only shows when it is imported.
    """
    check_threads(threads)
    broken: dict[str, str] = {}
    while True:
        choice = choose(bundle, device, precision, unsafe=unsafe, broken=broken)
        start = partial(
            choice.target.load, bundle, choice.artifact, device=device, threads=threads, mode=mode, cache=cache
        )
        try:
            return Started(choice, start(), start)
        except ImportError as error:
            broken[choice.artifact.target] = f"a package that is installed cannot be imported: {error}"


def choose(
    bundle: Bundle, device: str, precision: str, *, unsafe: bool = False, broken: Mapping[str, str] | None = None
) -> Choice:
    """Return the first runnable artifact by the targets' RANK and by precision; arguments and errors as `edgekd.load`.

    `broken` are targets that cannot run whatever they say themselves, and why.

    Within a target, int8 is first where its receipt says that its gates held and that it is faster than the target's
    other precisions, else last. Where no precision is asked for, int8 that is slower, and w8a32, come behind all
    others of every target: they are less exact, and nobody gains by it. Without a passing receipt int8 is not there.
    """
    artifacts = all_artifacts(bundle)
    modules = {name: load_target(name) for name in target_names()}
    fitting = [
        item for item in artifacts if item.target in modules and _means(modules[item.target], item.target, device)
    ]
    if not fitting:
        raise UsageError(_no_device(bundle, device, modules))
    exact = [item for item in fitting if precision in ("auto", item.precision)]
    if not exact:
        have = ", ".join(f"{item.target} {item.precision}" for item in fitting)
        raise UsageError(
            f"the bundle has no {precision} artifact for device={device!r}; it has: {have}. "
            + how_to_add(bundle, f"--target {fitting[0].target} --precision {precision}")
        )
    exact.sort(
        key=lambda item: (
            precision == "auto" and _only_if_asked(bundle, item),
            modules[item.target].RANK,
            _precision_rank(bundle, item),
        )
    )
    discarded = [
        f"{item.target} {item.precision}: not {device}, {precision}" for item in artifacts if item not in exact
    ]
    if not unsafe:
        exact = _allowed(bundle, exact, discarded)
    for index, item in enumerate(exact):
        problem = (broken or {}).get(item.target) or modules[item.target].probe()
        if problem is None:
            later = [_later(bundle, other) for other in exact[index + 1 :]]
            reason = f"{item.target} {item.precision} is the first of {len(exact)} fitting artifacts that runs here"
            return Choice(modules[item.target], item, reason + _why_int8(bundle, item), (*discarded, *later))
        discarded.append(f"{item.target} {item.precision}: {problem}")
    listed = "\n  ".join(discarded)
    raise TargetUnavailableError(f"nothing in {bundle.path} can run here with device={device!r}:\n  {listed}")


def all_artifacts(bundle: Bundle) -> list[Artifact]:
    """Return the built artifacts, and the portable graph for each target that runs it as it is."""
    built = list(bundle.manifest.artifacts)
    for name in target_names() if bundle.manifest.graph is not None else ():
        if load_target(name).PORTABLE and not any(item.target == name for item in built):
            built.append(Artifact(target=name, precision="fp32", files={}))
    return built


def how_to_add(bundle: Bundle, words: str) -> str:
    """Return how to get an artifact that a bundle lacks: the command, or why there is none."""
    if bundle.manifest.graph is None:
        return bundle.why_no_graph()
    return f"To add it: edgekd build {bundle.path or 'model.bin'} {words}"


def _means(module: Target, name: str, device: str) -> bool:
    """Whether the user's spelling of `device` means this target."""
    wanted = device.lower()
    if wanted in ("auto", name):
        return True
    return any(wanted == item or (item.endswith("*") and wanted.startswith(item[:-1])) for item in module.DEVICES)


def _only_if_asked(bundle: Bundle, artifact: Artifact) -> bool:
    """Whether an artifact loses accuracy and is known to gain nothing by it, so that "auto" takes it last.

    int8 whose speed nobody has measured, as TensorRT's that was built without a GPU, is only last of its target: the
    portable graph on the CPU is no better guess.
    """
    receipt = int8_receipt(bundle.manifest, artifact.target) if needs_receipt(artifact) else None
    if receipt is not None:
        return receipt.speed_up is not None and not receipt.faster
    return artifact.precision not in PRECISION_ORDER


def _precision_rank(bundle: Bundle, artifact: Artifact) -> int:
    if needs_receipt(artifact):
        receipt = int8_receipt(bundle.manifest, artifact.target)
        return -1 if receipt is not None and receipt.passed and receipt.faster else len(PRECISION_ORDER) + 1
    known = artifact.precision in PRECISION_ORDER
    return PRECISION_ORDER.index(artifact.precision) if known else len(PRECISION_ORDER)


def _allowed(bundle: Bundle, artifacts: list[Artifact], discarded: list[str]) -> list[Artifact]:
    """Return the artifacts that may run, and note the others.

    Raises:
        GateError: none may.
    """
    refused = {index: refusal(bundle.manifest, item) for index, item in enumerate(artifacts)}
    lines = [f"{artifacts[index].target} {why}" for index, why in refused.items() if why is not None]
    allowed = [item for index, item in enumerate(artifacts) if refused[index] is None]
    if not allowed:
        target = artifacts[0].target
        raise GateError(
            f"{bundle.path}: {'; '.join(lines)}. To build it with one: edgekd build {bundle.path} --target {target} "
            "--precision int8 --calib DIR; to run it all the same: load(..., unsafe=True)"
        )
    discarded += lines
    return allowed


def _later(bundle: Bundle, artifact: Artifact) -> str:
    """Return why an artifact that could run comes after the chosen one."""
    name = f"{artifact.target} {artifact.precision}"
    receipt = int8_receipt(bundle.manifest, artifact.target) if needs_receipt(artifact) else None
    if receipt is None and _only_if_asked(bundle, artifact):
        return f"{name}: only where it is asked for (precision={artifact.precision!r})"
    if receipt is None or receipt.faster:
        return f"{name}: ranks after the chosen one"
    if receipt.speed_up is None:
        return f"{name}: its speed has not been measured on this target"
    return f"{name}: not faster than {receipt.rival} when measured ({receipt.speed_up:.2f} times its speed)"


def _why_int8(bundle: Bundle, artifact: Artifact) -> str:
    """Return what the receipt of a chosen int8 artifact says, as the end of a sentence; empty for others."""
    receipt = int8_receipt(bundle.manifest, artifact.target) if needs_receipt(artifact) else None
    if receipt is None:
        return "; it has no receipt" if needs_receipt(artifact) else ""
    value = receipt.row["value"]  # a drop: below 0 it did better than the float network
    lost = f"{'gained' if value < 0 else 'lost'} {abs(value):.2g} {receipt.row.get('unit', '')}".rstrip()
    speed = "" if receipt.speed_up is None else f", {receipt.speed_up:.1f} times as fast as {receipt.rival}"
    failed = "" if receipt.passed else "failed its gates: it "
    return f"; when measured it {failed}{lost}{speed}"


def _no_device(bundle: Bundle, device: str, modules: dict[str, Target]) -> str:
    meant = [name for name, module in modules.items() if _means(module, name, device)]
    if meant:
        return (
            f"device={device!r} means {', '.join(meant)}, but the bundle holds: "
            f"{', '.join(f'{item.target} {item.precision}' for item in all_artifacts(bundle))}. "
            + how_to_add(bundle, f"--target {meant[0]}")
        )
    spellings = sorted({"auto", *modules, *(item for module in modules.values() for item in module.DEVICES)})
    return f"no device {device!r}; possible: {', '.join(spellings)}"
