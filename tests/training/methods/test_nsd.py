"""NSD on handmade outputs: every term from its formula, what it sees and does not see, what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd._recipe import DistillConfig
from edgekd.errors import RecipeError
from edgekd.training.distill import Distiller
from edgekd.training.methods import Scene, Taps, method
from edgekd.training.methods.nsd import NSD
from edgekd.training.models.heads import ORIENTED, HeadOutputs, TowerHead, build_head
from edgekd.training.models.heads import head as head_module

STRIDES, SIDES, CHANNELS = (8, 16, 32), (8, 4, 2), 6
HEADS = ("retina-obb-class", "retina-obb", "dense-obb", "retina", "dense")
LABELS = [torch.tensor([0, 2, 1]), torch.zeros(0, dtype=torch.long), torch.tensor([1])]
UPRIGHT = [
    torch.tensor([[4.0, 6, 40, 30], [30, 30, 62, 60], [3, 2, 60, 62]]),
    torch.zeros(0, 4),
    torch.tensor([[2.0, 2, 34, 34]]),
]
TURNED = [
    torch.tensor([[22.0, 20, 36, 26, 0.3], [45, 44, 34, 30, -1.2], [32, 31, 60, 56, 0.1]]),
    torch.zeros(0, 5),
    torch.tensor([[18.0, 18, 33, 31, 0.7]]),
]
PIXELS_OFF = {"pixel_background": 0.0}


def head_of(name: str, classes: int = 3) -> TowerHead:
    torch.manual_seed(0)
    head = build_head(name, classes, (16, 16, 16), 1, STRIDES, 64.0)
    assert isinstance(head, TowerHead)
    return head


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outputs_of(name: str, seed: int, images: int = 3, classes: int = 3) -> HeadOutputs:
    anchors = 9 if name.startswith("retina") else 1
    bins = {"retina-obb-class": 30, "retina-obb": 1, "dense-obb": 1}.get(name, 0)
    sizes = {"logits": classes, "regression": 4, "angle": bins}

    def maps(part: int, channels: int) -> tuple[Tensor, ...]:
        shapes = [(images, anchors * channels, side, side) for side in SIDES]
        return tuple(noise(*shape, seed=100 * seed + 10 * part + i) for i, shape in enumerate(shapes))

    return HeadOutputs(**{key: maps(i, count) for i, (key, count) in enumerate(sizes.items()) if count})


def taps_of(name: str, seed: int, images: int = 3, classes: int = 3, levels: tuple[int, ...] = (3, 4, 5)) -> Taps:
    features = {
        level: noise(images, CHANNELS, side, side, seed=1000 * seed + level)
        for level, side in zip((3, 4, 5), SIDES, strict=True)
        if level in levels
    }
    network = SimpleNamespace(head=head_of(name, classes), strides=STRIDES)
    return Taps(features, outputs_of(name, seed, images, classes), network)


def scene_of(name: str, images: int = 3, step: int = 6, objects: bool = True) -> Scene:
    """Return a scene of a run of 12 steps, one an epoch of the authors."""
    boxes = (TURNED if name in ORIENTED else UPRIGHT)[:images]
    labels = LABELS[:images]
    if not objects:
        boxes, labels = [each[:0] for each in boxes], [each[:0] for each in labels]
    return Scene(boxes, labels, 64, 64, step, 12)


def identities(*levels: int) -> nn.ModuleDict:
    return nn.ModuleDict({f"p{level}": nn.Identity() for level in levels or (3, 4, 5)})


def losses_of(name: str, images: int = 3, step: int = 6, objects: bool = True, **options: Any) -> dict[str, Tensor]:
    """Return the losses with adapters that leave the maps as they are."""
    taps = taps_of(name, 1, images), taps_of(name, 2, images)
    return NSD(**options)(*taps, identities(), scene_of(name, images, step, objects))


def leaves(taps: Taps) -> Taps:
    """Return copies that collect gradients."""
    head = HeadOutputs(*(tuple(item.clone().requires_grad_() for item in part) for part in taps.head))
    return Taps({level: item.clone().requires_grad_() for level, item in taps.features.items()}, head, taps.network)


@pytest.mark.parametrize("name", HEADS)
def test_the_scene_has_every_kind_of_prior(name: str) -> None:
    """What the other tests compare would prove little otherwise."""
    taps, scene = taps_of(name, 1), scene_of(name)
    labels = taps.network.head.matches(taps.head, scene.boxes, scene.labels).labels
    anchors = labels.shape[1] // 84
    kinds = {-2, -1, 0, 1, 2} if anchors == 9 else {-1, 0, 1, 2}
    assert set(labels.unique().tolist()) == kinds
    assert set(labels[1].tolist()) == {-1}
    fine, middle, _ = labels.split([64 * anchors, 16 * anchors, 4 * anchors], dim=1)
    assert min(fine.max(), middle.max()) >= 0


@pytest.mark.parametrize("name", HEADS)
def test_a_student_that_is_the_teacher_has_nothing_to_learn(name: str) -> None:
    taps = taps_of(name, 1)
    found = NSD(score_weight=1.0, pixel_foreground=3.0)(taps, taps, identities(), scene_of(name))
    assert all(abs(value.item()) <= 1e-6 for value in found.values())
    adapters = NSD().adapters(dict.fromkeys((3, 4, 5), (CHANNELS, CHANNELS)))  # these begin near 0
    fresh = NSD()(taps, taps, adapters, scene_of(name))
    assert all((value.item() > 0.1) == key.startswith("pixel") for key, value in fresh.items())


def test_adapters_are_the_authors() -> None:
    torch.manual_seed(0)
    adapters = NSD().adapters({3: (4, 32), 4: (4, 32)})
    conv = adapters.get_submodule("p4")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.weight.shape, conv.padding, conv.bias is not None) == ((32, 4, 3, 3), (1, 1), True)
    weights = conv.weight.detach() * 1e4
    assert float(weights.abs().max()) < 2
    assert 0.8 < float(weights.std()) < 0.95  # of a normal distribution, folded where it is beyond 2
    assert [*NSD(**PIXELS_OFF).adapters({3: (4, 8)}).parameters()] == []


def test_terms_rise_with_the_epochs_except_pixel_and_box() -> None:
    rows = [losses_of("retina-obb-class", step=step, score_weight=1.0) for step in range(12)]
    for level in ("p3", "p4", "p5"):
        for term in ("logit", "angle", "score"):
            last = rows[-1][f"{term}.{level}"].item()
            assert last > 0
            shares = [row[f"{term}.{level}"].item() / last for row in rows]
            assert shares[:4] == [0, pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(1)]
            assert shares[4:] == pytest.approx([1] * 8)
        for term in ("pixel", "box"):
            assert len({row[f"{term}.{level}"].item() for row in rows}) == 1
    at_once = losses_of("retina-obb-class", step=0, warmup=0.0)
    assert at_once["logit.p3"].item() == rows[-1]["logit.p3"].item()


@pytest.mark.parametrize("name", HEADS)
def test_gradient_is_zero_on_positives_and_not_on_the_ignored_and_none_reaches_the_teacher(name: str) -> None:
    student, teacher, scene = leaves(taps_of(name, 1)), leaves(taps_of(name, 2)), scene_of(name)
    labels = student.network.head.matches(student.head, scene.boxes, scene.labels).labels
    shown = Taps(teacher.features, HeadOutputs(*(tuple(x.detach() for x in part) for part in teacher.head)),
                 teacher.network)  # fmt: skip
    losses = NSD(**PIXELS_OFF)(student, shown, identities(), scene)
    torch.stack(list(losses.values())).sum().backward()
    parts = {"logits": 3, "regression": 4} | ({"angle": student.network.head.bins} if student.head.angle else {})
    for part, count in parts.items():
        maps = [item.grad for item in getattr(student.head, part)]
        flat = head_module.join_levels(maps, count).abs().amax(dim=1)
        assert float(flat[labels >= 0].max()) == 0, part
        assert float(flat[labels == -1].min()) > 0, part
        if name.startswith("retina"):
            assert float(flat[labels == -2].min()) > 0, part
    assert all(item.grad is None for part in teacher.head for item in part)


def test_ignored_anchors_get_no_gradient_where_they_are_left_out() -> None:
    student, scene = leaves(taps_of("retina-obb-class", 1)), scene_of("retina-obb-class")
    labels = student.network.head.matches(student.head, scene.boxes, scene.labels).labels
    losses = NSD(**PIXELS_OFF, include_ignored=False)(student, taps_of("retina-obb-class", 2), identities(), scene)
    torch.stack(list(losses.values())).sum().backward()
    for part, count in {"logits": 3, "regression": 4, "angle": 30}.items():
        flat = head_module.join_levels([x.grad for x in getattr(student.head, part)], count).abs().amax(dim=1)
        assert float(flat[labels == -2].max()) == 0
        assert float(flat[labels == -1].min()) > 0


def shifted(taps: Taps, amount: float) -> Taps:
    return Taps(taps.features, taps.head._replace(logits=tuple(x + amount for x in taps.head.logits)), taps.network)


def test_logit_does_not_see_a_constant_on_all_classes_and_score_does() -> None:
    built = NSD(score_weight=1.0)
    student, teacher, scene = taps_of("retina", 1), taps_of("retina", 2), scene_of("retina")
    exact = tuple((64 * item).round() / 64 for item in student.head.logits)  # sums without rounding
    student = Taps(student.features, student.head._replace(logits=exact), student.network)
    plain, moved = (built(shifted(student, c), teacher, identities(), scene) for c in (0.0, 8.0))
    for key, value in plain.items():
        assert (moved[key].item() == value.item()) == (not key.startswith("score")), key


def picked(taps: Taps, images: list[int]) -> Taps:
    head = HeadOutputs(*(tuple(item[images] for item in part) for part in taps.head))
    return Taps({level: item[images] for level, item in taps.features.items()}, head, taps.network)


@pytest.mark.parametrize("options", [{}, {"sample": "nontarget", "normaliser": "sampled", "pixel_foreground": 3.0}])
@pytest.mark.parametrize("name", HEADS)
def test_order_and_number_of_images_do_not_matter(name: str, options: dict[str, Any]) -> None:
    student, teacher, scene = taps_of(name, 1), taps_of(name, 2), scene_of(name)

    def of(images: list[int]) -> dict[str, float]:
        chosen = dataclasses.replace(
            scene, boxes=[scene.boxes[i] for i in images], labels=[scene.labels[i] for i in images]
        )
        found = NSD(**options)(picked(student, images), picked(teacher, images), identities(), chosen)
        return {key: value.item() for key, value in found.items()}

    plain = of([0, 1, 2])
    assert of([2, 0, 1]) == pytest.approx(plain, rel=1e-5)
    assert of([0, 1, 2, 0, 1, 2]) == pytest.approx(plain, rel=1e-5)
    for images in ([0], [0, 1]):
        assert all(math.isfinite(value) and value >= 0 for value in of(images).values())


def test_order_of_anchors_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, scene = taps_of("retina-obb-class", 1), taps_of("retina-obb-class", 2), scene_of("retina-obb-class")
    plain = NSD()(ours, theirs, identities(), scene)
    order = [4, 8, 0, 2, 6, 1, 3, 5, 7]

    def turned(taps: Taps) -> Taps:
        parts = []
        for part in taps.head:
            maps = (item.unflatten(1, (9, -1))[:, order].flatten(1, 2) for item in part)
            parts.append(tuple(maps))
        return Taps(taps.features, HeadOutputs(*parts), taps.network)

    def reordered(flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (-1, 9))[..., order].flatten(-2)

    head = ours.network.head
    found = head.matches(ours.head, scene.boxes, scene.labels)
    moved = found._replace(match=reordered(found.match), quality=reordered(found.quality))
    monkeypatch.setattr(head, "matches", lambda *_: moved)
    again = NSD()(turned(ours), turned(theirs), identities(), scene)
    assert {k: v.item() for k, v in again.items()} == pytest.approx({k: v.item() for k, v in plain.items()}, rel=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_images_without_objects_are_all_background(name: str) -> None:
    student, scene = leaves(taps_of(name, 1)), scene_of(name, objects=False)
    built = NSD(pixel_foreground=3.0, normaliser="sampled", box_reduction="positives")
    adapters = built.adapters(dict.fromkeys((3, 4, 5), (CHANNELS, CHANNELS)))
    losses = built(student, taps_of(name, 2), adapters, scene)
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(value.isfinite()) and value.item() > 0 for value in losses.values())
    assert all(bool((item.grad != 0).any()) for part in student.head for item in part)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in adapters.parameters())
    assert NSD().observe(student, taps_of(name, 2), adapters, scene).maps["background"][3].min().item() == 1


@pytest.mark.parametrize("options", [{}, {"normaliser": "sampled"}, {"include_ignored": False}])
@pytest.mark.parametrize("name", HEADS)
def test_levels_of_positives_alone_give_connected_zeros(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    student, scene = leaves(taps_of(name, 1, images=1)), scene_of(name, images=1)
    head = student.network.head
    found = head.matches(student.head, scene.boxes, scene.labels)
    everywhere = found._replace(match=torch.zeros_like(found.match), quality=torch.ones_like(found.quality))
    monkeypatch.setattr(head, "matches", lambda *_: everywhere)
    built = NSD(**options)
    adapters = built.adapters(dict.fromkeys((3, 4, 5), (CHANNELS, CHANNELS)))
    losses = built(student, taps_of(name, 2, images=1), adapters, scene)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.item() == 0 for value in losses.values())
    used = [item for part in student.head for item in part] + [*student.features.values(), *adapters.parameters()]
    assert all(item.grad is not None and float(item.grad.abs().max()) == 0 for item in used)


@pytest.mark.parametrize("options", [{}, {"pixel_background": 0.0, "pixel_foreground": 3.0}])
def test_every_parameter_of_the_adapters_is_in_the_graph_whatever_the_batch(options: dict[str, Any]) -> None:
    for objects in (True, False):
        built = NSD(**options)
        adapters = built.adapters(dict.fromkeys((3, 4, 5), (CHANNELS, CHANNELS)))
        taps = taps_of("retina-obb", 1), taps_of("retina-obb", 2)
        losses = built(*taps, adapters, scene_of("retina-obb", objects=objects))
        torch.stack(list(losses.values())).sum().backward()
        assert all(parameter.grad is not None for parameter in adapters.parameters())


def cast(taps: Taps, dtype: torch.dtype) -> Taps:
    return Taps(taps.features, HeadOutputs(*(tuple(x.to(dtype) for x in part) for part in taps.head)), taps.network)


@pytest.mark.parametrize("name", HEADS)
def test_huge_logits_in_half_precision_under_autocast_are_computed_in_float32(name: str) -> None:
    student, teacher = taps_of(name, 1), taps_of(name, 2)
    loud = tuple(x.sign() * 50 for x in student.head.logits)
    huge = Taps(student.features, student.head._replace(logits=loud), student.network)
    half = [cast(taps, torch.bfloat16) for taps in (huge, teacher)]
    entry = DistillConfig(method="nsd", options={"score_weight": 1.0, "sample": "both", "box_sample": "both"})
    channels = dict.fromkeys((3, 4, 5), CHANNELS)
    distiller = Distiller([entry], channels, {"teacher": channels}, seed=0)
    seen = []
    for ours, theirs in (half, [cast(taps, torch.float32) for taps in half]):
        with torch.autocast("cpu", torch.bfloat16):
            _, values = distiller(ours, {"teacher": theirs}, scene_of(name))
        assert all(value.dtype == torch.float32 and bool(value.isfinite()) for value in values.values())
        assert all(value.item() >= 0 for value in values.values())
        seen.append({key: value.item() for key, value in values.items()})
    assert seen[0] == seen[1]


def test_levels_that_are_not_taught_do_not_count_and_the_order_of_levels_is_theirs() -> None:
    whole = losses_of("retina-obb-class", pixel_levels=(1.0, 2.0, 4.0))
    student, teacher = taps_of("retina-obb-class", 1), taps_of("retina-obb-class", 2)
    scene = scene_of("retina-obb-class")
    backwards = Taps(dict(reversed(student.features.items())), student.head, student.network)
    again = NSD(pixel_levels=(1.0, 2.0, 4.0))(backwards, teacher, identities(), scene)
    assert {k: v.item() for k, v in again.items()} == {k: v.item() for k, v in whole.items()}
    two = Taps({level: student.features[level] for level in (5, 4)}, student.head, student.network)
    found = NSD(pixel_levels=(2.0, 4.0))(two, teacher, identities(4, 5), scene)
    assert set(found) == {key for key in whole if not key.endswith("p3")}
    for key, value in found.items():
        factor = 1.5 if key.startswith("pixel") else 1.0  # a half of the weight each, not a third
        assert value.item() == pytest.approx(factor * whole[key].item(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"normaliser": "sampled", "sample": "both", "pixel_foreground": 3.0},
                                     {"box_reduction": "positives", "box_sample": "both"}])  # fmt: skip
def test_two_ranks_compute_what_one_does_on_the_joined_batch(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, built = "retina-obb-class", NSD(**options, include_ignored=False)
    student, teacher = (picked(taps_of(name, seed), [0, 1]) for seed in (1, 2))
    scene = scene_of(name, images=2)
    joined = built(student, teacher, identities(), scene)
    seen: dict[int, list[Tensor]] = {0: [], 1: []}
    replay, here = False, 0
    calls = [0, 0]

    def all_reduce(tensor: Tensor) -> None:
        if replay:
            tensor += seen[1 - here][calls[here]]
        else:
            seen[here].append(tensor.clone())
        calls[here] += 1

    for key, value in {"is_available": True, "is_initialized": True, "get_world_size": 2}.items():
        monkeypatch.setattr(head_module.dist, key, lambda value=value: value)
    monkeypatch.setattr(head_module.dist, "all_reduce", all_reduce)
    for replay in (False, True):  # noqa: B007
        calls[:] = [0, 0]
        parts = []
        for here in (0, 1):
            alone = dataclasses.replace(scene, boxes=[scene.boxes[here]], labels=[scene.labels[here]])
            parts.append(built(picked(student, [here]), picked(teacher, [here]), identities(), alone))
    assert len(seen[0]) == len(seen[1]) > 0
    mean = {key: (parts[0][key] + parts[1][key]).item() / 2 for key in joined}
    assert mean == pytest.approx({key: value.item() for key, value in joined.items()}, rel=1e-5)


def test_observe_asks_no_other_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is written by the first rank alone."""
    monkeypatch.setattr(head_module, "mean_over_ranks", lambda _: pytest.fail("waits for the others"))
    for name in HEADS:
        NSD().observe(taps_of(name, 1), taps_of(name, 2), identities(), scene_of(name))


def test_observe_shows_the_aligned_maps_and_the_shares_of_priors() -> None:
    student, teacher, scene = taps_of("retina", 1), taps_of("retina", 2), scene_of("retina")
    found = NSD().adapters(dict.fromkeys((3, 4, 5), (CHANNELS, CHANNELS)))
    seen = NSD().observe(student, teacher, found, scene)
    torch.testing.assert_close(seen.aligned[4], found.get_submodule("p4")(student.features[4]))
    labels = student.network.head.matches(student.head, scene.boxes, scene.labels).labels
    assert seen.maps["background"][4].shape == (3, 4, 4)
    first = 9 * 64  # of the second level
    for row, column in ((0, 0), (1, 2), (3, 3)):
        cell = labels[0, first + 9 * (4 * row + column) :][:9]
        assert seen.maps["background"][4][0, row, column].item() == pytest.approx((cell < 0).float().mean().item())
        assert seen.maps["foreground"][4][0, row, column].item() == pytest.approx((cell >= 0).float().mean().item())
    assert float(seen.maps["foreground"][4].max()) > 0
    assert NSD(**PIXELS_OFF).observe(student, teacher, nn.Identity(), scene).aligned == {}
    fewer = NSD(include_ignored=False).observe(student, teacher, found, scene).maps["background"]
    assert float(fewer[4].sum()) < float(seen.maps["background"][4].sum())


def test_options_come_from_a_recipe() -> None:
    built = method("nsd", sample="nontarget", pixel_mode="nsd_compat", temperature=2, box_angle=False)
    assert built == NSD(sample="nontarget", pixel_mode="nsd_compat", temperature=2.0, box_angle=False)
    assert method("nsd", pixel_levels=[1, 0.5]).pixel_levels == (1.0, 0.5)  # type: ignore[attr-defined]
    assert built.needs_head


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": "neg"}, "sample is 'neg'; possible: negatives, positives, both, nontarget"),
        ({"box_sample": "nontarget"}, "box_sample is 'nontarget'; possible: negatives, positives, both"),
        ({"normaliser": "ncs"}, "normaliser is 'ncs'; possible: all, sampled"),
        ({"box_reduction": "sum"}, "box_reduction is 'sum'; possible: mean, positives"),
        ({"pixel_mode": "released"}, "pixel_mode is 'released'; possible: normalised, nsd_compat"),
        ({"temperature": 0.0}, "temperature is 0.0; it should be above 0"),
        ({"beta": -1.0}, "beta is -1.0; it should be above 0"),
        ({"score_weight": -1.0}, "score_weight is -1.0; it should be 0 or above"),
        ({"pixel_foreground": math.inf}, "pixel_foreground is inf; it should be 0 or above"),
        ({"box_weight": math.nan}, "box_weight is nan; it should be 0 or above"),
        ({"warmup": 3.0}, "warmup is 3.0; it is a share of the run, from 0 to 1"),
        (
            {"logit_weight": 0.0, "angle_weight": 0.0, "box_weight": 0.0, "pixel_background": 0.0},
            "all weights are 0; give one of logit_weight, angle_weight",
        ),
        ({"pixel_mode": "nsd_compat", "pixel_levels": (1.0,)}, "weighs the levels itself; leave out pixel_levels"),
    ],
)
def test_impossible_options_are_refused_with_what_is_possible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^nsd: .*{message}"):
        NSD(**options)


def test_factors_that_are_not_as_many_as_the_levels_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"pixel_levels has 2 factors for 3 levels \(P3, P4, P5\)"):
        NSD(pixel_levels=(1.0, 2.0)).adapters(dict.fromkeys((3, 4, 5), (4, 4)))


def test_heads_without_assignment_are_refused_with_those_that_have_one() -> None:
    taps = taps_of("retina", 1)
    yolo = build_head("yolo", 3, (16, 16, 16), 1, STRIDES, 64.0)
    other = Taps(taps.features, taps.head, SimpleNamespace(head=yolo, strides=STRIDES))
    heads = "dense, dense-obb, .*retina, retina-giou, retina-obb, retina-obb-class$"
    for student, teacher, whose in ((other, taps, "student"), (taps, other, "teacher")):
        with pytest.raises(RecipeError, match=rf"the {whose}'s head \(YOLOHead\) does not tell .*; heads .*: {heads}"):
            NSD()(student, teacher, identities(), scene_of("retina"))


def test_heads_of_unlike_priors_are_refused_naming_both() -> None:
    student = taps_of("retina-obb-class", 1)
    scene = scene_of("retina-obb-class")
    said = (
        r"the student has RetinaOBBHead with 9 priors a cell, 3 classes, 30 classes of angles on P3 8×8, P4 4×4, P5 2×2"
    )
    larger = copy.copy(outputs_of("retina-obb-class", 2))
    larger = larger._replace(logits=tuple(x.repeat(1, 1, 2, 1) for x in larger.logits))
    others = {
        "DenseOBBHead with 1 priors a cell, 3 classes on P3": taps_of("dense-obb", 2),
        "RetinaHead with 9 priors a cell, 3 classes on P3": taps_of("retina", 2),
        "RetinaOBBHead with 9 priors a cell, 4 classes, 30": taps_of("retina-obb-class", 2, classes=4),
        "RetinaOBBHead with 9 priors a cell, 3 classes on": taps_of("retina-obb", 2),
        "30 classes of angles on P3 16×8": Taps(student.features, larger, student.network),
    }
    for words, teacher in others.items():
        with pytest.raises(
            RecipeError, match=rf"{said} and the teacher .*{words}.*use heads of one kind.*angle_weight"
        ):
            NSD()(student, teacher, identities(), scene)


def test_heads_that_tell_angles_otherwise_are_compared_where_angles_are_not() -> None:
    student, teacher, scene = taps_of("retina-obb-class", 1), taps_of("retina-obb", 2), scene_of("retina-obb")
    for one, other in ((student, teacher), (teacher, student)):
        found = NSD(angle_weight=0.0, box_angle=False)(one, other, identities(), scene)
        assert {key.split(".")[0] for key in found} == {"pixel", "logit", "box"}
        for options in ({"angle_weight": 0.0}, {"box_angle": False}):
            with pytest.raises(RecipeError, match="one to one"):
                NSD(**options)(one, other, identities(), scene)


def test_angles_alone_are_refused_where_heads_have_no_classes_of_them() -> None:
    only = {"logit_weight": 0.0, "box_weight": 0.0, "pixel_background": 0.0}
    with pytest.raises(RecipeError, match="no classes of angles; possible: head retina-obb-class, or another weight"):
        losses_of("retina-obb", **only)
    assert set(losses_of("retina-obb-class", **only)) == {"angle.p3", "angle.p4", "angle.p5"}


def test_one_class_has_no_logit_term_and_scores_teach_it() -> None:
    student, teacher = taps_of("dense-obb", 1, classes=1), taps_of("dense-obb", 2, classes=1)
    scene = dataclasses.replace(scene_of("dense-obb"), labels=[torch.zeros_like(each) for each in LABELS])
    found = NSD(score_weight=1.0)(student, teacher, identities(), scene)
    assert found["logit.p3"].item() == 0
    assert found["score.p3"].item() > 0.01
