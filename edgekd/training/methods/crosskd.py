"""CrossKD: the student's features through the teacher's head."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from ..models.boxes import giou
from ..models.gaussian import probiou_loss
from ..models.heads import HeadOutputs, TowerHead
from ..models.heads.head import SharedTower, gather_levels, join_levels, share_of_total
from ..teacher import levels_of
from . import Observed
from ._limits import check_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from . import Scene, Taps

_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class CrossKD:
    """Let the teacher's head predict from the student's features (CrossKD, Wang et al., CVPR 2024).

    The student's features behind convolution i of its towers take on, channel by channel, mean and deviation of the
    teacher's over (N, H, W); from there the teacher's frozen layers go on to a prediction, which is compared with the
    teacher's own. So the student's head does not meet the teacher's targets and the ground truth, which contradict each
    other, in one and the same prediction. Gradients reach convolutions up to i, neck and backbone.

    Both heads need towers, as all have but yolo; depths, kinds and even classes may differ, for everything is compared
    in the teacher's terms, and a 1x1 convolution a tower bridges unequal channel counts. Where the teacher sees another
    input size, the student's tower runs over its maps on the teacher's grid. A step costs the teacher's towers twice
    over and the student's once more. Localization distillation (LD, Zheng et al., CVPR 2022), often its companion,
    compares distributions of box edges, which no head here predicts. A teacher with classes of angles does not teach
    these: which bin is strongest has no gradient.

    Attributes:
        class_weight: of the class term, 1 with the authors (0.4 with FCOS).
        box_weight: of the box term, 1 with the authors (0.75 with FCOS).
        remaining: convolutions of the teacher's towers that the student's features still run through; i is `head_depth`
            less this number. The authors take 1 of 4.
    """

    needs_head: ClassVar[bool] = True

    class_weight: float = 1.0
    box_weight: float = 1.0
    remaining: int = 1

    def __post_init__(self) -> None:
        check_numbers("crosskd", self, at_least_0=("class_weight", "box_weight"))
        if self.remaining < 0:
            raise RecipeError(f"crosskd: remaining should be 0 or more, got {self.remaining}")

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return `{"classes": ..., "boxes": ...}`: identities, or 1x1 convolutions shared by all levels as towers are.

        Raises:
            RecipeError: a neck whose levels differ in channels, behind which no head has towers.
        """
        pairs = set(channels.values())
        if len(pairs) > 1:
            raise RecipeError(
                f"crosskd: levels should have equal channels, (student, teacher) are {sorted(pairs)};"
                " it needs heads with towers (dense, retina, those of oriented boxes) on neck fpn or pafpn"
            )
        ((ours, theirs),) = pairs
        return nn.ModuleDict(
            {
                name: nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1, bias=False)
                for name in ("classes", "boxes")
            }
        )

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene) -> dict[str, Tensor]:
        """Return "class" and "box".

        class: BCE to the teacher's scores times the distance of the scores (quality focal loss with beta 1), summed,
        over what the student's own loss is divided by. box: 1 - GIoU with the teacher's boxes, or of oriented boxes
        1 - ProbIoU, which like it has a gradient for boxes apart; weighted by the teacher's best score of each and
        divided by these weights' sum. Both divisors count as at least 1: a batch in which nothing is found would
        otherwise explode.

        Raises:
            RecipeError: a head without towers, or with fewer convolutions than `remaining`.
        """
        ours, head = _head(student, "student"), _head(teacher, "teacher")
        given = HeadOutputs(*(tuple(item.detach().float() for item in part) for part in teacher.head))
        crossed = self._cross(student, teacher, adapters, given)
        target = join_levels(given.logits, head.num_classes).sigmoid()
        logits = join_levels(crossed.logits, head.num_classes)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        wrong = (logits.sigmoid() - target).abs()
        weight = target.amax(dim=1) * _taught_rows(given, head, teacher)
        boxes, wanted = (head.decode(outputs)[0].flatten(0, 1) for outputs in (crossed, given))
        apart = probiou_loss(boxes, wanted) if head.box_columns == 5 else 1 - giou(boxes, wanted)[1]
        positives = share_of_total(ours.positives(student.head, scene.boxes, scene.labels))
        return {
            "class": self.class_weight * (entropy * wrong).sum() / positives,
            "box": self.box_weight * (apart * weight.flatten()).sum() / share_of_total(weight.sum()),
        }

    def observe(self, student: Taps, teacher: Taps, _adapters: nn.Module, _scene: Scene) -> Observed:
        """Show the neck's maps where channels agree, and the teacher's best scores, which weigh the boxes."""
        equal = {
            level: features
            for level, features in student.features.items()
            if features.shape[1] == teacher.features[level].shape[1]
        }
        levels = levels_of(teacher.network.strides)
        scores = {
            level: item.float().sigmoid().amax(dim=1) for level, item in zip(levels, teacher.head[0], strict=True)
        }
        attention = {level: scores[level] / scores[level].mean(dim=(1, 2), keepdim=True) for level in teacher.features}
        return Observed(equal, {"teacher attention": attention})

    def _cross(self, student: Taps, teacher: Taps, adapters: nn.Module, given: HeadOutputs) -> HeadOutputs:
        """Return what the teacher's head predicts from the student's features; on levels not taught, from its own."""
        ours, head = _head(student, "student"), _head(teacher, "teacher")
        theirs = {level: index for index, level in enumerate(levels_of(teacher.network.strides))}
        own = {level: index for index, level in enumerate(levels_of(student.network.strides))}
        parts = list(zip(*(maps for maps in given if maps), strict=True))
        for level, features in student.features.items():
            maps = (features, teacher.features[level])
            levels = (own[level], theirs[level])
            classes = self._through(
                (ours.class_tower, head.class_tower), adapters.get_submodule("classes"), maps, levels
            )
            boxes = self._through((ours.box_tower, head.box_tower), adapters.get_submodule("boxes"), maps, levels)
            parts[theirs[level]] = head.predict(classes, boxes, theirs[level])
        return gather_levels(parts)

    def _through(
        self,
        towers: tuple[SharedTower, SharedTower],
        adapter: nn.Module,
        features: tuple[Tensor, Tensor],
        levels: tuple[int, int],
    ) -> Tensor:
        """Return the teacher's tower output `(N, C, H, W)` for the student's features; arguments: student, teacher."""
        depths = [len(tower.convs) - self.remaining for tower in towers]
        if min(depths) < 0:
            raise RecipeError(
                f"crosskd: remaining is {self.remaining}, the towers of student and teacher have head_depth"
                f" {len(towers[0].convs)} and {len(towers[1].convs)}; it is at most the smaller one"
            )
        with _untracked(towers[0]):
            ours = adapter(towers[0].before(features[0], levels[0], depths[0]))
        with torch.no_grad():
            theirs = towers[1].before(features[1], levels[1], depths[1])
        return towers[1].after(restyled(ours, theirs), levels[1], depths[1])


def restyled(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return `ours` `(N, C, H, W)` with each channel's mean and deviation over (N, H, W) those of `theirs`."""
    var, mean = torch.var_mean(ours, dim=(0, 2, 3), keepdim=True, correction=0)
    wanted_var, wanted_mean = torch.var_mean(theirs, dim=(0, 2, 3), keepdim=True, correction=0)
    return (ours - mean) * ((wanted_var + _EPS) / (var + _EPS)).sqrt() + wanted_mean


def _head(taps: Taps, whose: str) -> TowerHead:
    head = getattr(taps.network, "head", None)
    if not isinstance(head, TowerHead):
        raise RecipeError(
            f"crosskd: the {whose}'s head ({type(head).__name__}) has no towers to cross;"
            " heads that have: dense, retina, retina-giou, and those of oriented boxes"
        )
    return head


def _taught_rows(outputs: HeadOutputs, head: TowerHead, teacher: Taps) -> Tensor:
    """Return `(N,)`: 1 for predictions of a level that is taught, else 0."""
    levels = zip(levels_of(teacher.network.strides), outputs.logits, strict=True)
    return torch.cat(
        [item.new_full((item[0].numel() // head.num_classes,), level in teacher.features) for level, item in levels]
    )


@contextmanager
def _untracked(tower: SharedTower) -> Iterator[None]:
    """Keep BatchNorm layers from counting a batch into their running statistics a second time."""
    norms = [cast("nn.BatchNorm2d", m) for m in tower.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    before = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm, value in zip(norms, before, strict=True):
            norm.track_running_stats = value
