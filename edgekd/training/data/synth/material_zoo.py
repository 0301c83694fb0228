"""A zoo of materials without photographs: nine families of textures, each material one draw of a family's parameters.

What a teacher of anomaly detection learns to tell apart where no trained weights are at hand. They are drawn apart from
the surfaces of `surface_materials`, which have to be new to such a teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .outline import turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .textures import Field

SHAPES = 900  # of a heap, at most


@dataclass(frozen=True, eq=False)
class Material:
    """One class.

    Attributes:
        family: a key of `FAMILIES`.
        scale: pixels of a feature, 3 to 28.
        stretch: length of a feature over its width, 1 to 6.
        angle: of the long side, in radians: clockwise on the image, in families of filtered noise counter-clockwise.
        form: what a family makes of it, in [0, 1]: how sharp, how regular, how steep its spectrum.
        mix: another, in [0, 1].
        dark, light: `(3,)` RGB ends of its colour range.
    """

    family: str
    scale: float
    stretch: float
    angle: float
    form: float
    mix: float
    dark: NDArray[np.float32]
    light: NDArray[np.float32]

    def draw(self, rng: np.random.Generator, size: int) -> NDArray[np.float32]:
        """Return a square of it, `(size, size, 3)` float32 in [0, 1]."""
        weight = FAMILIES[self.family](self, rng, size)
        mixed = self.dark + np.clip(weight, 0, 1)[..., None] * (self.light - self.dark)
        return np.asarray(mixed, np.float32)


def material(seed: int, index: int) -> Material:
    """Draw the parameters of material `index` of a zoo; consecutive ones are of different families."""
    rng = np.random.default_rng((seed, index))
    dark, light = rng.uniform(0, 0.55, 3), rng.uniform(0.45, 1, 3)
    return Material(
        family=tuple(FAMILIES)[index % len(FAMILIES)],
        scale=float(np.exp(rng.uniform(np.log(3), np.log(28)))),
        stretch=float(rng.choice((1.0, rng.uniform(1.5, 6)))),
        angle=float(rng.uniform(0, np.pi)),
        form=float(rng.uniform()),
        mix=float(rng.uniform()),
        dark=dark.astype(np.float32),
        light=light.astype(np.float32),
    )


def _filtered(rng: np.random.Generator, size: int, gain: Callable[[Field, Field], Field], angle: float) -> Field:
    """Return random phases under a spectrum, mean 0 and variance 1; `gain` takes cycles a pixel along two axes."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = cos * columns - sin * rows, sin * columns + cos * rows
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    field = np.fft.irfft2(spectrum * gain(along, across), s=(size, size))
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


def _band(item: Material, rng: np.random.Generator, size: int, width: float) -> Field:
    """Return noise whose features have the material's scale and stretch; `width` of the band, 0 to 1."""

    def gain(along: Field, across: Field) -> Field:
        radius = np.hypot(along * item.stretch, across) * 2 * item.scale
        return np.asarray(np.exp(-(((radius - 1) / (0.15 + width)) ** 2)), np.float32)

    return _filtered(rng, size, gain, item.angle)


def _coordinates(item: Material, rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Return (u, v): pixels from a random origin, along and across, in features."""
    columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    matrix = turn(-item.angle) / item.scale
    x, y = rng.uniform(0, 64, 2)
    u = (matrix[0, 0] * columns + matrix[0, 1] * rows) / item.stretch + x
    v = matrix[1, 0] * columns + matrix[1, 1] * rows + y
    return u.astype(np.float32), v.astype(np.float32)


def clouds(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return noise whose amplitude falls with a power of the frequency, between 0.5 and 2.2."""
    power = 0.5 + 1.7 * item.form

    def gain(along: Field, across: Field) -> Field:
        radius = np.hypot(along * item.stretch, across)
        return np.asarray((radius + 1 / size) ** -power, np.float32)

    return 0.5 + 0.22 * _filtered(rng, size, gain, item.angle)


def ripples(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return waves of one length that keep their direction more or less."""
    spread = 0.1 + 0.7 * item.form

    def gain(along: Field, across: Field) -> Field:
        radius, off = np.hypot(along, across) * 2 * item.scale, np.arctan2(np.abs(along), np.abs(across))
        return np.asarray(np.exp(-(((radius - 1) / 0.2) ** 2) - (off / spread) ** 2), np.float32)

    return 0.5 + 0.25 * _filtered(rng, size, gain, item.angle)


def spots(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return islands: noise cut at a level, with hard or soft shores."""
    cut = _band(item, rng, size, 0.4) - (1.6 * item.mix - 0.8)
    return np.asarray(1 / (1 + np.exp(-np.clip(cut * (1.5 + 14 * item.form), -30, 30))), np.float32)


def veins(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return the lines where noise passes zero, or bands that noise bends."""
    noise = _band(item, rng, size, 0.6)
    if item.mix < 0.5:
        return np.asarray(np.exp(-np.abs(noise) * (2 + 8 * item.form)), np.float32)
    _, v = _coordinates(item, rng, size)
    return np.asarray(0.5 + 0.5 * np.sin(np.pi * (v + (0.2 + 0.8 * item.form) * noise)), np.float32)


def _wave(phase: Field, form: float) -> Field:
    """Return a wave of period 2 in [0, 1], from a sine to nearly a square."""
    hard = 1 + 9 * form
    return np.asarray(0.5 + 0.5 * np.tanh(hard * np.sin(np.pi * phase)) / np.tanh(hard), np.float32)


def lattice(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return two waves across each other: chequers, dots, holes or wires."""
    u, v = _coordinates(item, rng, size)
    bend = _band(item, rng, size, 0.3) * np.float32(0.06)
    one, other = _wave(u + bend, item.form), _wave(v + bend, item.form)
    found = (np.abs(one - other), one * other, np.maximum(one, other), 0.5 * (one + other))[int(item.mix * 4) % 4]
    return np.asarray(found, np.float32)


def bond(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return blocks laid in rows, joints between them, every block a shade of its own."""
    u, v = _coordinates(item, rng, size)
    row = np.floor(v / 2)
    shifted = u / 2 + np.float32(item.mix) * np.mod(row, 2)
    column = np.floor(shifted)
    edge = np.minimum(np.minimum(shifted - column, column + 1 - shifted), np.minimum(v / 2 - row, row + 1 - v / 2))
    block = np.clip((edge - 0.04) / 0.06, 0, 1)
    shades = rng.random((64, 64), dtype=np.float32)
    shade = shades[np.mod(row, 64).astype(np.intp), np.mod(column, 64).astype(np.intp)]
    return np.asarray(block * (0.55 + (0.1 + 0.6 * item.form) * (shade - 0.5)) + 0.25 * (1 - block), np.float32)


def cells(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return what random points own: flat cells, the walls between them, or cones."""
    u, v = (np.asarray(each / 2, np.float32) for each in _coordinates(item, rng, size))
    shift = rng.random((3, 64, 64), dtype=np.float32)
    loose = np.float32(0.25 + 0.75 * item.form)
    first, second, owner = np.full_like(u, 9), np.full_like(u, 9), np.zeros_like(u)
    column, row = np.floor(u), np.floor(v)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            x, y = column + j, row + i
            at = np.mod(y, 64).astype(np.intp), np.mod(x, 64).astype(np.intp)
            distance = np.hypot(x + 0.5 + loose * (shift[0][at] - 0.5) - u, y + 0.5 + loose * (shift[1][at] - 0.5) - v)
            nearer = distance < first
            second = np.minimum(second, np.where(nearer, first, distance))
            owner = np.where(nearer, shift[2][at], owner)
            first = np.minimum(first, distance)
    kind = int(item.mix * 3) % 3
    found = (owner, np.clip((second - first) * 3, 0, 1), np.clip(1.2 * first, 0, 1))[kind]
    return np.asarray(found, np.float32)


def heap(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return shapes fallen on each other, each of one shade (dead leaves): discs, or blocks in all directions."""
    canvas = np.full((size, size), 0.5, np.float32)
    radius = max(item.scale / 2, 2.0)
    count = min(SHAPES, int(4 * size * size / (np.pi * radius * radius * item.stretch)))
    for x, y, grown, shade, angle in rng.random((count, 5)):
        centre = (int(x * size), int(y * size))
        half = radius * (0.5 + (1 + item.form) * grown)
        tilt = np.rad2deg(item.angle) + 180 * (angle - 0.5) * item.mix
        if item.mix < 0.5:
            axes = (max(1, int(half * item.stretch)), max(1, int(half)))
            cv2.ellipse(canvas, centre, axes, tilt, 0, 360, shade, -1, cv2.LINE_AA)
        else:
            box = cv2.boxPoints((centre, (2 * half * item.stretch, 2 * half), tilt))
            cv2.fillPoly(canvas, [box.astype(np.int32)], shade, cv2.LINE_AA)
    return canvas


def fibres(item: Material, rng: np.random.Generator, size: int) -> Field:
    """Return strokes: thin, straight, more or less in one direction."""
    canvas = np.full((size, size), 0.35, np.float32)
    length = item.scale * (2 + 4 * item.form)
    count = min(SHAPES, int(size * size / (2.5 * length)))
    for x, y, shade, angle in rng.random((count, 4)):
        tilt = item.angle + (angle - 0.5) * np.pi * item.mix
        dx, dy = 0.5 * length * np.cos(tilt), 0.5 * length * np.sin(tilt)
        start, end = ((int(x * size + side * dx), int(y * size + side * dy)) for side in (-1, 1))
        cv2.line(canvas, start, end, 0.2 + 0.8 * shade, 1 + (item.scale > 12), cv2.LINE_AA)
    return canvas


FAMILIES: dict[str, Callable[[Material, np.random.Generator, int], Field]] = {
    "clouds": clouds,
    "ripples": ripples,
    "spots": spots,
    "veins": veins,
    "lattice": lattice,
    "bond": bond,
    "cells": cells,
    "heap": heap,
    "fibres": fibres,
}
