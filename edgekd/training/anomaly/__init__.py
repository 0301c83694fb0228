"""Anomaly detection by reverse distillation, with one frozen teacher or two of different architectures.

The reference is RD4AD (Deng and Li, CVPR 2022). Relatives: RD++ (Tien et al., CVPR 2023), and STFPM (Wang et al., BMVC
2021), whose student is no decoder. Two teachers: a reconstruction after Pei et al., Appl. Sci. 2023, 13(6), 3838, of
which only abstract and headings are public: figures of ours are no reproduction of theirs.
"""

from __future__ import annotations

from .matching import EncoderStudent, MatchingNetwork
from .network import AnomalyNetwork
from .projected import ProjectedNetwork
from .pyramid import Pyramid
from .students import MirrorStudent, PlainStudent

__all__ = [
    "AnomalyNetwork",
    "EncoderStudent",
    "MatchingNetwork",
    "MirrorStudent",
    "PlainStudent",
    "ProjectedNetwork",
    "Pyramid",
]
