"""The teacher: a frozen network that looks at the student's batch in its own way."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import RecipeError
from .methods import Taps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._recipe import InputConfig


class Pyramid(Protocol):
    """A network with a feature pyramid; every detector of `training.models` is one."""

    strides: tuple[int, ...]

    @property
    def channels(self) -> int | tuple[int, ...]:
        """Channels of every level alike, or one count a level."""
        ...

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the neck's maps `(B, C, H, W)`, one a stride, for normalised images `(B, 3, H, W)`."""
        ...


class Guide(Protocol):
    """Whatever shows features for a batch: a `Teacher`, or a `CachedTeacher` that reads them from the disk."""

    input: InputConfig
    source: dict[str, Any]
    classes: tuple[str, ...] | None
    levels: tuple[int, ...]
    channels: dict[int, int]

    @property
    def has_head(self) -> bool:
        """Whether the network is a whole detector."""
        ...

    def to(self, device: torch.device) -> Guide:
        """Move to a device."""
        ...

    def look(self, images: Tensor, seen_by: InputConfig, *, head: bool, amp: torch.dtype | None = None) -> Taps:
        """Return what it shows for the student's batch; see `Teacher.look`."""
        ...


class Teacher:
    """A frozen pyramid network.

    Nothing of it is trained: no parameter takes a gradient, BatchNorm runs on its stored statistics, and the hash of
    its state (`fingerprint`) is the same before and after.

    Args:
        network: the pyramid.
        input: what it was trained with. Size, colour order and normalisation may differ from the student's.
        source: where its weights come from, for the provenance.
        classes: names of its classes in label order, if they are known; for pseudo-labels.
    """

    def __init__(
        self,
        network: Pyramid,
        input: InputConfig,  # noqa: A002 - the recipe's name
        source: Mapping[str, Any],
        classes: Sequence[str] | None = None,
    ) -> None:
        self.network = network
        self.input = input
        self.source = dict(source)
        self.classes = None if classes is None else tuple(classes)
        self.levels = levels_of(network.strides)
        self.channels = channels_of(network)
        module = cast("nn.Module", network)
        module.requires_grad_(requires_grad=False).eval()
        self.source["state_sha256"] = fingerprint(module)
        if isinstance(network, TappedNetwork):  # the same weights show something else at other taps
            self.source["taps"] = dict(network.taps)

    def to(self, device: torch.device) -> Teacher:
        """Move the network."""
        cast("nn.Module", self.network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @property
    def has_head(self) -> bool:
        """Whether the network is a whole detector."""
        return hasattr(self.network, "head_outputs")

    @torch.no_grad()
    def look(self, images: Tensor, seen_by: InputConfig, *, head: bool, amp: torch.dtype | None = None) -> Taps:
        """Run the network on the student's batch.

        Args:
            images: `(B, 3, H, W)` uint8 in the student's colour order, already augmented.
            seen_by: the student's input.
            head: whether the head has to run too.
            amp: arithmetic of autocast, or None for fp32.

        Returns:
            Features by level in float32, in the teacher's own resolution, channels innermost in memory.
        """
        pixels = translate(images, seen_by, self.input).contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, amp or torch.bfloat16, enabled=amp is not None):
            features = self.network.features(pixels)
        maps = (item.float().contiguous(memory_format=torch.channels_last) for item in features)
        shown = dict(zip(self.levels, maps, strict=True))
        return self.judge(shown, amp) if head else Taps(shown, None, self.network)

    @torch.no_grad()
    def judge(self, shown: dict[int, Tensor], amp: torch.dtype | None) -> Taps:
        """Run the head alone, on the features that `look` shows: just now, or out of a cache, the bits are the same."""
        device = next(iter(shown.values())).device.type
        with torch.autocast(device, amp or torch.bfloat16, enabled=amp is not None):
            outputs = cast("Any", self.network).head_outputs(list(shown.values()))
        return Taps(shown, outputs, self.network)


def translate(images: Tensor, seen_by: InputConfig, wanted: InputConfig) -> Tensor:
    """Turn the student's uint8 batch `(B, 3, H, W)` into the normalised float batch another network expects."""
    pixels = images.flip(1) if seen_by.color != wanted.color else images
    pixels = pixels.float()
    size = (wanted.height, wanted.width)
    if pixels.shape[2:] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (wanted.mean, wanted.std))
    return (pixels - mean) / std


def levels_of(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the pyramid level log2(stride) of each stride.

    Raises:
        RecipeError: a stride is no power of two.
    """
    for stride in strides:
        if stride < 1 or stride & (stride - 1):
            raise RecipeError(f"stride {stride} is no power of two; levels are matched by stride 2**level")
    return tuple(stride.bit_length() - 1 for stride in strides)


def channels_of(network: Pyramid) -> dict[int, int]:
    """Return pyramid level -> channels."""
    levels = levels_of(network.strides)
    counts = (network.channels,) * len(levels) if isinstance(network.channels, int) else network.channels
    return dict(zip(levels, counts, strict=True))


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 over names, shapes, types and bytes of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class TappedNetwork(nn.Module):
    """Your own network as a pyramid: any module, with the stride of each submodule whose output is to be taught.

    A tap shows what its submodule returned, also where a layer behind it writes into the same tensor.

    Args:
        module: called with normalised images `(B, 3, H, W)`; what it returns is not looked at.
        taps: dotted submodule name -> stride of its output `(B, C, H, W)`, for example `{"layer2": 8, "layer3": 16}`.
        size: height and width of a trial image, by which channels and strides are checked.

    Raises:
        RecipeError: a name is no submodule, an output is no map, or its stride is another.
    """

    def __init__(self, module: nn.Module, taps: Mapping[str, int], size: tuple[int, int] = (256, 256)) -> None:
        super().__init__()
        self.module = module.eval()
        ordered = sorted(taps.items(), key=lambda item: item[1])
        self.taps = dict(ordered)
        self.strides = tuple(stride for _, stride in ordered)
        self._seen: dict[str, Tensor] = {}
        self._overwritten: set[str] = set()  # taps into which a later layer writes: only these are copied
        possible = dict(module.named_modules())
        for name, _ in ordered:
            if name not in possible:
                named = ", ".join(other for other in possible if other)
                raise RecipeError(f"the teacher has no submodule {name!r}; it has: {named}")
            possible[name].register_forward_hook(self._keep(name))
        self._names = [name for name, _ in ordered]
        self.channels = self._check(size)

    def features(self, images: Tensor) -> list[Tensor]:
        """Run the module and return the tapped outputs, finest first."""
        self.module(images)
        found = [self._seen[name] for name in self._names]
        self._seen.clear()
        return found

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._seen[name] = output.clone() if name in self._overwritten else output

        return hook

    def _trial(self, images: Tensor) -> list[Tensor]:
        """Return the tapped outputs of a first run, in which every tap is watched for writes after it."""
        versions: dict[str, int] = {}
        watches = [
            self.module.get_submodule(name).register_forward_hook(_watch(versions, name)) for name in self._names
        ]
        self.module(images)
        for watch in watches:
            watch.remove()
        self._overwritten = {name for name, version in versions.items() if _writes(self._seen[name]) != version}
        return self.features(images)

    @torch.no_grad()
    def _check(self, size: tuple[int, int]) -> tuple[int, ...]:
        parameter = next(self.module.parameters())
        maps = self._trial(torch.zeros(1, 3, *size, dtype=parameter.dtype, device=parameter.device))
        for name, stride, found in zip(self._names, self.strides, maps, strict=True):
            want = (-(-size[0] // stride), -(-size[1] // stride))
            if not isinstance(found, Tensor) or found.ndim != 4 or tuple(found.shape[2:]) != want:
                got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise RecipeError(
                    f"tap {name!r}: stride {stride} of {size} pixels means (1, C, {want[0]}, {want[1]}), got {got}"
                )
        return tuple(found.shape[1] for found in maps)


def _watch(versions: dict[str, int], name: str) -> Callable[..., None]:
    """Return a hook that notes how often an output has been written to when its submodule returns it."""

    def hook(_module: nn.Module, _inputs: Any, output: object) -> None:
        if isinstance(output, Tensor):
            versions[name] = _writes(output)

    return hook


def _writes(tensor: Tensor) -> int:
    """Return how often a tensor has been written to in place."""
    return int(tensor._version)  # noqa: SLF001 (torch has no public name for it)
