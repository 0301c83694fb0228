"""FAD: imitation weighted by the teacher's semantics (LSFI) and consistency of distributions (MDC-KD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...errors import RecipeError
from . import Observed
from ._align import align_channels, aligned
from ._attention import channel_attention, spatial_attention
from ._channel_kl import channel_kl
from ._correlation import SMALLEST_MAP, correlation_loss
from ._limits import check_numbers
from ._lsfi import channel_energy, imitation_loss, spatial_energies
from ._ssim import structure_loss
from ._standardise import standardised

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from . import Scene, Taps

_SMALLEST_SIDE = 7  # cells; a smaller level has no neighbourhoods to compare and is skipped
_CHOICES = {
    "lsfi": ("both", "spatial", "channel"),
    "imitate": ("raw", "standardised"),
    "mdc": ("features", "logits"),
    "distribution": ("pearson", "kl"),
    "stat": ("batch", "image", "cell"),
    "range": ("teacher", "minmax_raw"),
    "adapt": ("auto", "always"),
}


@dataclass(frozen=True, kw_only=True)
class FAD:
    """Imitate where the teacher is strong (LSFI); match global correlation and local structure (MDC-KD).

    After Li, Di, Liu and Ye, CVIU 262, 2025, 104519. A reconstruction: neither equations nor code of it are public, so
    the formulas are ours, built on its abstract and its published relatives: attention from magnitudes (FGD), Pearson
    correlation (PKD), SSIM (de Rijk et al., NeurIPS 2022). Per level, F the student's aligned map, T the teacher's:

        α · mean A^S A^C ((F − T)/rms(T))²    A^S, A^C: softmax of T's energy over cells, over channels ("lsfi.p3")
        β · mean_c (1 − r_c)(m − 1)/m         r_c: Pearson correlation of channel c over its m values   ("pcc.p3")
        γ · mean (1 − SSIM(F, T))/2           Gaussian windows of 11 cells, F and T on T's range         ("ssim.p3")

    A weight of 0 switches its term off, at no cost. Levels with a side below 7 cells are skipped. Masks from the ground
    truth are no option: the abstract takes the semantics from the teacher's maps.

    Attributes:
        alpha: weight of the imitation; 1 for one-stage and 0.5 for two-stage detectors to start with.
        beta: weight of the global consistency; 6 and 3.
        gamma: weight of the local consistency; 3 and 2.
        lsfi: which attention weighs the imitation: "both", "spatial" or "channel".
        scales: sides, in cells, of the squares over which the spatial energy is averaged; their mean counts.
        refine: whether each level's spatial energy is averaged with the next coarser level's.
        imitate: "raw" maps over the teacher's rms, or "standardised" ones z(F), z(T); the latter makes the global term
            all but redundant: set `beta = 0`.
        tau_s: temperature of A^S.
        tau_c: temperature of A^C.
        mdc: what the consistency terms compare: aligned "features", or the "logits" of the classes as scores, class by
            class; needs heads of one kind.
        distribution: the global term: "pearson", or "kl", CWD's divergence of the channels' distributions ("kl.p3").
        stat: over what Pearson's r is taken: "batch": N H W of a channel; "image": H W of a channel of one image;
            "cell": the channels of one cell (as DIST does over classes).
        tau_kl: temperature of "kl".
        range: how maps come to [0, 1] for SSIM: "teacher": both standardised and moved to the teacher's range;
            "minmax_raw": each image of each network by its own extremes.
        c1: SSIM's constant for means.
        c2: SSIM's constant for variances.
        recompute_above: from this many values of a map on, SSIM's intermediate maps, ten times as large, are not kept
            for the backward pass but computed again; 0: always.
        adapt: "auto": a 1×1 convolution where channel counts differ; "always": on every level.
    """

    alpha: float = 1.0
    beta: float = 6.0
    gamma: float = 3.0
    lsfi: str = "both"
    scales: tuple[int, ...] = (1, 2, 4)
    refine: bool = True
    imitate: str = "raw"
    tau_s: float = 0.5
    tau_c: float = 0.5
    mdc: str = "features"
    distribution: str = "pearson"
    stat: str = "batch"
    tau_kl: float = 1.0
    range: str = "teacher"
    c1: float = 1e-4
    c2: float = 9e-4
    recompute_above: int = 2**22
    adapt: str = "auto"

    def __post_init__(self) -> None:
        for name, possible in _CHOICES.items():
            if getattr(self, name) not in possible:
                raise RecipeError(f"fad: {name} is {getattr(self, name)!r}; possible: {', '.join(possible)}")
        above_0 = ("tau_s", "tau_c", "tau_kl", "c1", "c2")
        check_numbers("fad", self, at_least_0=("alpha", "beta", "gamma"), above_0=above_0)
        if not self.scales or min(self.scales) < 1:
            raise RecipeError(f"fad: scales are {list(self.scales)}; name at least one, each 1 or more cells")
        if self.distribution == "kl" and (self.stat != "batch" or self.mdc != "features"):
            raise RecipeError("fad: distribution = kl compares features and knows no stat; leave out mdc and stat")

    @property
    def needs_head(self) -> bool:
        """Whether the class maps are compared."""
        return self.mdc == "logits" and bool(self.beta or self.gamma)

    @property
    def compares_classes(self) -> bool:
        """Whether class i of the student is compared with class i of the teacher."""
        return self.needs_head

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return `{"p3": 1×1 convolution or identity, ...}`."""
        return align_channels(channels, always=self.adapt == "always")

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, _scene: Scene) -> dict[str, Tensor]:
        """Return "lsfi.p3", "pcc.p3" (or "kl.p3"), "ssim.p3" ..., already weighted; terms that are off are absent."""
        ours = aligned(student, adapters)
        theirs = _large_enough(teacher.features)
        small = [level for level in ours if level not in theirs]
        losses = {f"{term}.p{level}": ours[level].sum() * 0 for term in self._terms for level in small}
        if self._adapters_idle:
            losses = {f"lsfi.p{level}": features.sum() * 0 for level, features in ours.items()}
        if self.alpha:
            losses |= self._imitation(ours, theirs)
        if self.needs_head:
            losses |= self._consistency(_class_maps(student, teacher, theirs))
        elif self.beta or self.gamma:
            losses |= self._consistency({level: (ours[level], features) for level, features in theirs.items()})
        return losses

    def observe(self, student: Taps, teacher: Taps, adapters: nn.Module, _scene: Scene) -> Observed:
        """Show the aligned maps and, of the levels that are compared, A^S from either network if LSFI weighs by it."""
        ours = aligned(student, adapters)
        if not self.alpha or self.lsfi == "channel":
            return Observed(ours)
        sides = {"teacher attention": teacher.features, "student attention": ours}
        return Observed(ours, {name: self._cells(_large_enough(side)) for name, side in sides.items()})

    @property
    def _terms(self) -> tuple[str, ...]:
        """The names of the terms that are on."""
        weights = {"lsfi": self.alpha, self._global_name: self.beta, "ssim": self.gamma}
        return tuple(name for name, weight in weights.items() if weight)

    @property
    def _global_name(self) -> str:
        return "pcc" if self.distribution == "pearson" else "kl"

    @property
    def _adapters_idle(self) -> bool:
        """Whether no term looks at the aligned maps; a zero then keeps their parameters in the graph."""
        return not self.alpha and (self.needs_head or not (self.beta or self.gamma))

    def _cells(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return A^S `(N, H, W)` of each level."""
        energies = spatial_energies(maps, self.scales, self.refine)
        return {level: spatial_attention(energy, self.tau_s) for level, energy in energies.items()}

    def _imitation(self, ours: Mapping[int, Tensor], theirs: Mapping[int, Tensor]) -> dict[str, Tensor]:
        cells = self._cells(theirs) if self.lsfi != "channel" else {}
        losses = {}
        for level, y in theirs.items():
            channels = channel_attention(channel_energy(y), self.tau_c) if self.lsfi != "spatial" else None
            if self.imitate == "raw":
                loss = imitation_loss(ours[level], y, cells.get(level), channels)
            else:
                loss = imitation_loss(*standardised(ours[level], y)[:2], cells.get(level), channels)
            losses[f"lsfi.p{level}"] = self.alpha * loss
        return losses

    def _consistency(self, pairs: Mapping[int, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        losses = {}
        for level, (x, y) in pairs.items():
            if self.beta:
                losses[f"{self._global_name}.p{level}"] = self.beta * self._global(x, y)
            if self.gamma:
                losses[f"ssim.p{level}"] = self.gamma * self._local(x, y)
        return losses

    def _global(self, ours: Tensor, theirs: Tensor) -> Tensor:
        if self.distribution == "kl":
            return channel_kl(ours, theirs, self.tau_kl)
        return correlation_loss(_correlated(ours, self.stat), _correlated(theirs, self.stat))

    def _local(self, ours: Tensor, theirs: Tensor) -> Tensor:
        arguments = ours, theirs, self.range, self.c1, self.c2
        if theirs.numel() < self.recompute_above:
            return structure_loss(*arguments)
        loss = checkpoint(structure_loss, *arguments, use_reentrant=False, preserve_rng_state=False)
        return cast("Tensor", loss)


def _large_enough(maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {level: features for level, features in maps.items() if min(features.shape[2:]) >= _SMALLEST_SIDE}


def _correlated(features: Tensor, stat: str) -> Tensor:
    """Lay `(N, C, H, W)` out so that what is correlated together is one channel of a batch.

    Raises:
        RecipeError: "cell" with fewer channels than a correlation needs.
    """
    if stat == "image":
        return features.reshape(1, -1, *features.shape[2:])
    if stat == "cell":
        channels = features.shape[1]
        if channels < SMALLEST_MAP:
            raise RecipeError(f"fad: stat = cell needs {SMALLEST_MAP} channels, got {channels}; possible: batch, image")
        return features.transpose(0, 1).reshape(channels, -1, 1, 1)
    return features


def _class_maps(student: Taps, teacher: Taps, levels: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """Return both networks' class scores `(N, A C, H, W)` float32 by level, the student's on the teacher's grid.

    Raises:
        RecipeError: the heads predict different numbers of maps.
    """
    ours, theirs = _logits(student), _logits(teacher)
    found = {}
    for level in levels:
        x, y = ours[level].float(), theirs[level].detach().float()
        if x.shape[1] != y.shape[1]:
            raise RecipeError(
                f"fad: mdc = logits pairs class maps one to one, but on P{level} the student has {x.shape[1]} and the "
                f"teacher {y.shape[1]} (anchors × classes); use heads of one kind, or mdc = features"
            )
        if x.shape[2:] != y.shape[2:]:
            x = F.interpolate(x, y.shape[2:], mode="bilinear", align_corners=False)
        found[level] = x.sigmoid(), y.sigmoid()
    return found


def _logits(taps: Taps) -> dict[int, Tensor]:
    """Return the head's class logits by pyramid level; a head predicts once a stride of its network."""
    return {stride.bit_length() - 1: x for stride, x in zip(taps.network.strides, taps.head.logits, strict=True)}
