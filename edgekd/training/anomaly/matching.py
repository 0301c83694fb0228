"""`MatchingNetwork`: STFPM, a student that looks at the image itself and matches the teacher's pyramid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from . import cosine
from .network import AnomalyNetwork, Seen
from .pyramid import cut, walk

if TYPE_CHECKING:
    from ..models.backbones import Backbone
    from .pyramid import Pyramid

UNFOLDED = {"mobilenetv2-tf": "mobilenetv2"}
"""The architecture of a teacher whose file has no BatchNorm any more: the student has to be trained with it."""


class EncoderStudent(nn.Module):
    """A backbone up to the last tap, as `Pyramid` but trained.

    Args:
        name: the backbone's, a key of `pyramid.TAPS`.
        backbone: its layers are taken over.
    """

    def __init__(self, name: str, backbone: Backbone) -> None:
        super().__init__()
        layers, self._taps = cut(name, backbone)
        self.layers = nn.Sequential(*layers)

    def forward(self, adapted: Tensor) -> list[list[Tensor]]:
        """Return one pyramid, finest first, of the image as the teacher's layers see it, `(B, 3, H, W)`."""
        return [walk(self.layers, self._taps, adapted)]


class MatchingNetwork(AnomalyNetwork):
    """STFPM (Wang et al., BMVC 2021, section 3): teacher and student of one architecture, nothing between them.

    Its distance is half the squared one of two features brought to length 1, which is 1 - cosine. The loss is its mean
    over places, summed over scales; the map is its product over scales, taken at stride 4 like all maps here.

    Args:
        teacher: the only one.
        student: of its architecture.
    """

    def __init__(self, teacher: Pyramid, student: EncoderStudent) -> None:
        super().__init__([teacher], None, nn.Identity(), student, "single")  # nothing is embedded

    def look(self, images: Tensor) -> Seen:
        """Return the teacher's features and the student's for normalised images `(B, 3, H, W)`."""
        (teacher,) = self.pyramids
        return Seen([teacher(images)], self.student(teacher.adapt(images)), [])

    def loss(self, images: Tensor, kind: str = "per_location") -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, one cosine a place whatever `kind` says, and nothing else to log."""
        del kind
        seen = self.look(images)
        return cosine.loss(seen.targets[0], seen.students[0], "per_location"), {}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw map `(B, 1, H / 4, W / 4)`, in [0, 8], and the score `(B,)`."""
        seen = self.look(images)
        raw = cosine.product_map(seen.targets[0], seen.students[0])
        return raw, self.score(raw)
