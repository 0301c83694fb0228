"""Loss and map: values by hand, invariances, zero vectors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from edgekd.training.anomaly.cosine import LOSSES, anomaly_map, distance, loss

SHAPES = [(2, 6, 8, 8), (2, 10, 4, 4), (2, 12, 2, 2)]


def drawn(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_is_zero_for_equal_and_for_scaled_features_and_two_a_scale_for_opposite_ones(kind: str) -> None:
    features = drawn()
    assert abs(float(loss(features, features, kind))) < 1e-6
    assert abs(float(loss(features, [3.5 * each for each in features], kind))) < 1e-6
    assert float(loss(features, [-each for each in features], kind)) == pytest.approx(2 * len(SHAPES), abs=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_of_one_vector_is_that_computed_by_hand(kind: str) -> None:
    ours, theirs = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([4.0, 3.0]).view(1, 2, 1, 1)
    assert float(loss([ours], [theirs], kind)) == pytest.approx(1 - 24 / 25, abs=1e-6)


def test_global_loss_minds_the_norms_of_places_and_the_other_does_not() -> None:
    ours = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # channels (1, 0) and (0, 1)
    theirs = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # the same directions, one twice as long
    assert float(loss([ours], [theirs], "per_location")) == pytest.approx(0.0, abs=1e-6)
    assert float(loss([ours], [theirs], "global")) == pytest.approx(1 - 3 / math.sqrt(10), abs=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_is_a_mean_over_images_and_a_sum_over_scales(kind: str) -> None:
    ours, theirs = drawn(), drawn(1)
    alone = [
        [float(loss([a[i : i + 1]], [b[i : i + 1]], kind)) for i in range(2)] for a, b in zip(ours, theirs, strict=True)
    ]
    assert float(loss(ours, theirs, kind)) == pytest.approx(sum(sum(pair) / 2 for pair in alone), abs=1e-5)


def test_point_wise_distance_is_that_of_torch() -> None:
    ours, theirs = drawn()[0], drawn(1)[0]
    expected = 1 - F.cosine_similarity(ours, theirs, dim=1)
    torch.testing.assert_close(distance(ours, theirs, (1,))[:, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", LOSSES)
def test_features_in_bfloat16_are_compared_in_float32(kind: str) -> None:
    ours = [each.bfloat16() for each in drawn()]
    close = [(each.float() + 0.02 * torch.randn_like(each.float())).bfloat16() for each in ours]
    found = loss(ours, close, kind)
    expected = loss([each.float() for each in ours], [each.float() for each in close], kind)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_of_zero_features_is_finite_and_so_is_its_gradient(kind: str) -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    found = loss([torch.zeros(2, 3, 4, 4)], [student], kind)
    found.backward()
    assert float(found.detach()) == 1.0
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_targets_get_no_gradient() -> None:
    ours, theirs = (torch.rand(1, 2, 2, 2, requires_grad=True) for _ in range(2))
    loss([ours], [theirs]).backward()
    assert ours.grad is None
    assert theirs.grad is not None


def test_map_lies_in_its_range_and_is_zero_for_equal_features() -> None:
    ours, theirs = drawn(), drawn(1)
    found = anomaly_map(ours, theirs)
    assert found.shape == (2, 1, 8, 8)
    assert (found >= 0).all()
    assert (found <= 6).all()
    assert anomaly_map(ours, ours).max() < 1e-5
    assert (anomaly_map(ours, ours) >= 0).all()  # rounding must not make 1 - cos negative
    torch.testing.assert_close(anomaly_map(ours, [-each for each in ours]), torch.full((2, 1, 8, 8), 6.0))


def test_map_adds_coarse_scales_enlarged_with_half_pixel_centres() -> None:
    fine = torch.zeros(1, 2, 1, 4)
    fine[0, 0] = 1.0
    coarse = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    turned = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # the right one is at a right angle
    found = anomaly_map([fine, coarse], [fine, turned])
    torch.testing.assert_close(found.view(-1), torch.tensor([0.0, 0.25, 0.75, 1.0]))
