"""The whole network: what learns, what stands still, what an image's score depends on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from edgekd.training.anomaly import AnomalyNetwork

Make = Callable[..., AnomalyNetwork]
TARGETS = ["single", "fused_sg", "both_raw"]


def textures(count: int, seed: int = 0) -> torch.Tensor:
    """Return stripes of random phase, `(count, 3, 64, 64)`, as the teachers' BatchNorm knows them."""
    phase = torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) * 6.28
    grid = torch.arange(64.0).view(1, 1, 1, -1).expand(count, 3, 64, 64)
    return torch.sin(grid * 0.8 + phase)


def fitted(network: AnomalyNetwork, steps: int, freeze: int | None = None, lr: float = 5e-3) -> list[float]:
    """Train a few steps; return the losses."""
    network.train()
    optimizer = torch.optim.Adam([each for each in network.parameters() if each.requires_grad], lr, betas=(0.5, 0.999))
    losses = []
    for step in range(steps):
        if step == freeze:
            network.freeze_fusion()
        total, _ = network.loss(textures(4, step))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    network.eval()
    return losses


@pytest.mark.parametrize("target", TARGETS)
def test_map_and_score_have_the_contracts_shapes_and_range(target: str, network: Make) -> None:
    made = network(target).eval()
    with torch.no_grad():
        raw, score = made(torch.randn(2, 3, 64, 96))
    assert raw.shape == (2, 1, 16, 24)
    assert score.shape == (2,)
    assert ((raw >= 0) & (raw <= 6)).all()
    assert (score <= raw.amax((1, 2, 3)) + 1e-6).all()


@pytest.mark.parametrize("target", TARGETS)
def test_training_lowers_the_loss_and_leaves_the_teachers_alone(target: str, network: Make) -> None:
    made = network(target)
    before = {name: value.clone() for name, value in made.teachers.state_dict().items()}
    losses = fitted(made, 25)
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in made.teachers.state_dict().items())


def test_targets_carry_no_gradient_and_fusion_learns_through_the_embedding(network: Make) -> None:
    made = network("fused_sg").train()
    seen = made.look(textures(2))
    assert not any(each.requires_grad for each in seen.targets[0])
    made.embedding.requires_grad_(requires_grad=True)
    total, _ = made.loss(textures(2))
    total.backward()
    assert made.fusion is not None
    assert all(each.grad is not None for each in made.fusion.parameters())


def test_fused_target_is_the_fused_map_and_nothing_of_it_learns_when_the_embedding_is_cut_off(network: Make) -> None:
    made = network("fused_sg").train()
    made.embedding.register_forward_pre_hook(lambda _, inputs: ([each.detach() for each in inputs[0]],))
    total, _ = made.loss(textures(2))
    total.backward()
    assert made.fusion is not None
    assert all(each.grad is None for each in made.fusion.parameters())


def test_raw_targets_are_both_teachers_own_features(network: Make) -> None:
    made = network("both_raw").eval()
    images = textures(2)
    seen = made.look(images)
    for teacher, target, predicted in zip(made.teachers, seen.targets, seen.students, strict=True):
        torch.testing.assert_close(target, teacher(images))
        assert [each.shape for each in predicted] == [each.shape for each in target]


def test_two_pyramids_count_half_each(network: Make) -> None:
    from edgekd.training.anomaly import cosine

    made = network("both_raw").eval()
    with torch.no_grad():
        seen, (raw, _) = made.look(textures(2)), made(textures(2))
        maps = [cosine.anomaly_map(*pair) for pair in zip(seen.targets, seen.students, strict=True)]
        losses = [cosine.loss(*pair) for pair in zip(seen.targets, seen.students, strict=True)]
        torch.testing.assert_close(raw, (maps[0] + maps[1]) / 2)
        torch.testing.assert_close(made.loss(textures(2))[0], (losses[0] + losses[1]) / 2)


def test_frozen_fusion_makes_the_target_the_same_in_training_and_evaluation(network: Make) -> None:
    made = network("fused_sg")
    fitted(made, 6, freeze=3)
    assert made.fusion is not None
    state = {name: value.clone() for name, value in made.fusion.state_dict().items()}
    images = textures(3)
    training = made.train().look(images).targets[0]
    torch.testing.assert_close(training, made.eval().look(images).targets[0])
    made.train().loss(images)
    assert all(torch.equal(value, state[name]) for name, value in made.fusion.state_dict().items())


def test_fusion_that_feeds_the_embedding_alone_is_never_frozen(network: Make) -> None:
    made = network("both_raw")
    made.freeze_fusion()
    assert made.fusion is not None
    assert all(each.requires_grad for each in made.fusion.parameters())


def test_gates_are_logged_a_scale_and_stay_open(network: Make) -> None:
    made = network("fused_sg")
    fitted(made, 10, freeze=5)
    _, gates = made.loss(textures(2))
    assert set(gates) == {"gate.p2", "gate.p3", "gate.p4"}
    assert all(0.05 < float(gate) < 0.95 for gate in gates.values())
    assert network("fused_sg", fusion="add").loss(textures(2))[1] == {}


@pytest.mark.parametrize("target", TARGETS)
def test_score_of_an_image_does_not_depend_on_its_batch(target: str, network: Make) -> None:
    made = network(target)
    fitted(made, 3)
    images = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        _, together = made(images)
        _, reversed_ = made(images.flip(0))
        alone = torch.cat([made(images[i : i + 1])[1] for i in range(8)])
        again = made(images)[1]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, reversed_.flip(0), atol=1e-5, rtol=0)
    assert torch.equal(together, again)


@pytest.mark.parametrize("student", ["plain", "mirror"])
def test_a_pasted_square_is_where_the_map_peaks(student: str, network: Make) -> None:
    made = network("single", student=student)
    fitted(made, 60, lr=1e-3)
    normal = textures(6, 1000)
    spoilt = normal[:1].clone()
    spoilt[..., 24:40, 32:48] = 2 * torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        _, usual = made(normal)
        raw, score = made(spoilt)
        _, shuffled = made(normal[:1].flatten(2)[..., torch.randperm(64 * 64)].view(1, 3, 64, 64))
    # Within one cell of the coarsest scale, 16 pixels, of the square.
    y, x = divmod(int(made.score.blur(raw).argmax()), raw.shape[3])
    assert 24 - 16 <= 4 * y < 40 + 16
    assert 32 - 16 <= 4 * x < 48 + 16
    assert float(score) > float(usual.max())
    assert float(shuffled) > float(usual.max())


def test_scales_of_two_teachers_are_fitted_on_all_batches(network: Make) -> None:
    made = network("fused_sg")
    batches = [textures(3, 1), 5 * textures(1, 2)]
    made.equalise(batches)
    for teacher, equaliser in zip(made.teachers, made.equalisers, strict=True):
        features = teacher(torch.cat(batches))
        for each in equaliser(features):
            assert float(each.square().mean()) == pytest.approx(1.0, rel=1e-4)


def test_one_teacher_needs_no_scales(network: Make) -> None:
    made = network("single")
    made.equalise([textures(2)])
    assert torch.equal(made.equalisers[0].scales, torch.ones(3))
