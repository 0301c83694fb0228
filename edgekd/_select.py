"""Which artifact of a bundle runs here: the choice of `load`, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._manifest import Artifact
from ._target import Target, load_target, target_names
from .errors import TargetUnavailableError, UsageError

if TYPE_CHECKING:
    from ._bundle import Bundle

PRECISION_ORDER = ("fp32", "fp16")  # "auto" keeps the accuracy that was measured until a receipt says otherwise


@dataclass(frozen=True)
class Choice:
    """The artifact to run, its target, and why."""

    target: Target
    artifact: Artifact
    reason: str
    discarded: tuple[str, ...]


def choose(bundle: Bundle, device: str, precision: str) -> Choice:
    """Return the first runnable artifact by the targets' RANK and by precision; errors as `edgekd.load`."""
    artifacts = all_artifacts(bundle)
    modules = {name: load_target(name) for name in target_names()}
    fitting = [
        item for item in artifacts if item.target in modules and _means(modules[item.target], item.target, device)
    ]
    if not fitting:
        raise UsageError(_no_device(device, modules, artifacts))
    exact = [item for item in fitting if precision in ("auto", item.precision)]
    if not exact:
        have = ", ".join(f"{item.target} {item.precision}" for item in fitting)
        raise UsageError(
            f"the bundle has no {precision} artifact for device={device!r}; it has: {have}. "
            f"To add one: edgekd build {bundle.path} --target {fitting[0].target} --precision {precision}"
        )
    exact.sort(key=lambda item: (modules[item.target].RANK, _precision_rank(item.precision)))
    discarded = [
        f"{item.target} {item.precision}: not {device}, {precision}" for item in artifacts if item not in exact
    ]
    for index, item in enumerate(exact):
        problem = modules[item.target].probe()
        if problem is None:
            later = [f"{other.target} {other.precision}: ranks after the chosen one" for other in exact[index + 1 :]]
            reason = f"{item.target} {item.precision} is the first of {len(exact)} fitting artifacts that runs here"
            return Choice(modules[item.target], item, reason, (*discarded, *later))
        discarded.append(f"{item.target} {item.precision}: {problem}")
    listed = "\n  ".join(discarded)
    raise TargetUnavailableError(f"nothing in {bundle.path} can run here with device={device!r}:\n  {listed}")


def all_artifacts(bundle: Bundle) -> list[Artifact]:
    """Return the built artifacts, and the portable graph for each target that runs it as it is."""
    built = list(bundle.manifest.artifacts)
    for name in target_names():
        if load_target(name).PORTABLE and not any(item.target == name for item in built):
            built.append(Artifact(target=name, precision="fp32", files={}))
    return built


def _means(module: Target, name: str, device: str) -> bool:
    """Whether the user's spelling of `device` means this target."""
    wanted = device.lower()
    if wanted in ("auto", name):
        return True
    return any(wanted == item or (item.endswith("*") and wanted.startswith(item[:-1])) for item in module.DEVICES)


def _precision_rank(precision: str) -> int:
    return PRECISION_ORDER.index(precision) if precision in PRECISION_ORDER else len(PRECISION_ORDER)


def _no_device(device: str, modules: dict[str, Target], artifacts: list[Artifact]) -> str:
    meant = [name for name, module in modules.items() if _means(module, name, device)]
    if meant:
        return (
            f"device={device!r} means {', '.join(meant)}, but the bundle holds: "
            f"{', '.join(f'{item.target} {item.precision}' for item in artifacts)}. "
            f"To add it: edgekd build model.bin --target {meant[0]}"
        )
    spellings = sorted({"auto", *modules, *(item for module in modules.values() for item in module.DEVICES)})
    return f"no device {device!r}; possible: {', '.join(spellings)}"
