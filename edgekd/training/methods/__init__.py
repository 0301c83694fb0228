"""Distillation methods: one file each, found by file name; the file's one public dataclass is the method.

A method is a frozen dataclass whose fields are its options. It keeps no state: what it trains is built once by
`adapters`, given to the optimiser and to the checkpoint, and left out of the exported network. To add a method, write
`methods/<name>.py`; nothing else has to learn its name.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from ..._recipe import build_section
from ...errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class Taps:
    """What one network shows at one step.

    Attributes:
        features: pyramid level -> neck output `(B, C, H, W)`, float32. Student and teacher have the same H and W on a
            level: where they differ, the harness has resized the student's map to the teacher's grid (bilinear).
        head: what the network's head returned, if the method has `needs_head`; else None.
        network: the detector itself, if the method has `needs_head`; else None. The teacher's is frozen: its parameters
            take no gradient, but one may run through its layers.
    """

    features: Mapping[int, Tensor]
    head: Any = None
    network: Any = None


@dataclass(frozen=True)
class Scene:
    """The batch's ground truth, for methods that use it: boxes in pixels of a `(height, width)` network input.

    They are `(n, 4)` xyxy, or `(n, 5)` xywhr of an oriented data set (`edgekd.geometry`), one tensor an image.

    `labelled`: only the first so many images have targets for the detector's own loss; None: all. Images without
    annotations have no boxes, or those that a teacher found.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    height: int
    width: int
    step: int
    steps: int
    labelled: int | None = None


@dataclass(frozen=True)
class Observed:
    """What a method shows of one batch, for the log and for the page of `edgekd distill --explain`.

    Attributes:
        aligned: level -> the student's map `(N, C, H, W)` in the teacher's channels, as the method compares it.
        maps: name -> level -> what to draw, `(N, H, W)`. The names in use: "teacher attention" and "student attention"
            (mean 1 in each image), "foreground", "background".
    """

    aligned: Mapping[int, Tensor]
    maps: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)


@runtime_checkable
class Method(Protocol):
    """What the dataclass of a method file offers.

    One whose heads' classes are paired by number says so with a true `compares_classes`, an attribute or property:
    teachers of other classes are then refused. One that has something better to change than its weight, when student
    and teacher stay unlike, says it in words as `unlike_remedy`.
    """

    @property
    def needs_head(self) -> bool:
        """Whether the heads of both networks have to run; most methods need backbone and neck only.

        A plain class attribute will do, unless it depends on the options.
        """
        ...

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Build what the method trains (`nn.Identity()` if nothing) for `level -> (student, teacher)` channels.

        Torch's global generator is seeded for this call and restored after it.
        """
        ...

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene, /) -> dict[str, Tensor]:
        """Return scalar losses by name ("p3", "fg.p4" ...), each connected to the student's graph.

        Called with autocast off. The teacher's tensors carry no gradient. A skipped level returns a zero that is
        connected (`feature.sum() * 0`, through its adapter if it has one): unused parameters break DDP.
        """
        ...

    def observe(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene, /) -> Observed:
        """Return what the same call compares and weighs; called without gradient and with autocast off."""
        ...


def names() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return tuple(sorted(item.name for item in pkgutil.iter_modules(__path__) if not item.name.startswith("_")))


def method(name: str, **options: Any) -> Method:
    """Return the method of `methods/<name>.py` with these options.

    Raises:
        RecipeError: no such method, or an option it lacks or of the wrong type; the message lists the possible ones.
    """
    if name not in names():
        raise RecipeError(f"no distillation method {name!r}; possible: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type)
        and item.__module__ == module.__name__
        and dataclasses.is_dataclass(item)
        and isinstance(item, Method)
        and not item.__name__.startswith("_")
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} should hold one public dataclass that is a Method, it holds {len(found)}")
    return cast("Method", build_section(found[0], options, f"distill.options of {name}"))
