"""Relatives of RD4AD from recipe to bundle: the same bits when resumed, thresholds, portable graph, predictions."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import edgekd
from edgekd import AnomalyRecipe, Bundle
from edgekd._anomaly_recipe import (
    AnomalyDataConfig,
    AnomalyModelConfig,
    AnomalyPredictConfig,
    AnomalyTeacherConfig,
    AnomalyTrainConfig,
)
from edgekd._recipe import InputConfig
from edgekd.errors import RecipeError
from edgekd.training.anomaly.build import build_network
from edgekd.training.anomaly.network import METHODS
from edgekd.training.anomaly.run import read_splits
from edgekd.training.anomaly.trainer import AnomalyTrainer
from edgekd.training.checkpoint import read_meta, read_tensors
from edgekd.training.interrupt import Interrupted

if TYPE_CHECKING:
    from pathlib import Path

RELATIVES = [name for name in METHODS if name != "rd"]
TEACHER = AnomalyTeacherConfig(backbone="resnet18", width=0.25)


def recipe(category: Path, method: str, **train: Any) -> AnomalyRecipe:
    return AnomalyRecipe(
        name="stripes",
        data=AnomalyDataConfig(path=str(category)),
        teachers=(TEACHER,),
        input=InputConfig(height=64, width=64),
        model=AnomalyModelConfig(method=method, **({} if method == "stfpm" else {"widths": (8, 8, 16)})),
        train=dataclasses.replace(AnomalyTrainConfig(steps=5, batch=4, checkpoint_every=2, threads=1), **train),
        predict=AnomalyPredictConfig(alpha=0.1, pixel_alpha=0.01),
    )


def build(plan: AnomalyRecipe, folder: Path) -> AnomalyTrainer:
    return AnomalyTrainer(plan, folder, read_splits(plan)["train"], device=torch.device("cpu"))


@pytest.mark.parametrize("stop", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_run_that_was_stopped_and_resumed_has_the_same_bits(
    method: str, stop: int, category: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 3 a gradient of RD++ waits for the next."""
    plan = recipe(category, method)
    whole = build(plan, tmp_path / "whole")
    start = {name: value.clone() for name, value in whole.network.state_dict().items()}
    whole.run()
    stopped = build(plan, tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr("edgekd.training.interrupt.StopSignal.requested", lambda _: stopped.step >= stop)
        with pytest.raises(Interrupted, match=f"step {stop} of 5"):
            stopped.run()
    resumed = build(plan, tmp_path / "parts")
    assert resumed.step == stop
    resumed.run()
    moved = 0
    for (name, ours), theirs in zip(
        whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
        moved += not torch.equal(ours, start[name])
    assert moved > 20


@pytest.mark.parametrize("method", RELATIVES)
def test_amp_rounds_what_a_step_computes_and_not_what_it_keeps(method: str, category: Path, tmp_path: Path) -> None:
    losses = {}
    for amp in (False, True):
        run = build(recipe(category, method, amp=amp), tmp_path / str(amp))
        losses[amp] = [float(run._advance(run.batches.batch_at(step))[0]) for step in range(2)]
        kinds = {value.dtype for value in run.network.state_dict().values() if value.is_floating_point()}
        assert kinds == {torch.float32}
    assert losses[True] != losses[False]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.03)


def test_rd_plus_plus_moves_at_every_second_step_and_at_the_last(category: Path, tmp_path: Path) -> None:
    run = build(recipe(category, "rd++"), tmp_path)
    weight = run.network.projector.scales[0][0].weight  # type: ignore[union-attr, index]
    moved = []
    for step in range(5):
        before = weight.detach().clone()
        _, values = run._advance(run.batches.batch_at(step))
        moved.append(not torch.equal(weight, before))
        assert ("grad_norm" in values) == moved[-1]
        assert {"project.transport", "project.reconstruction", "project.contrast"} <= set(values)
    assert moved == [False, True, False, True, True]


def test_rd_plus_plus_has_a_rate_for_projectors_and_leaves_the_teacher_out(category: Path, tmp_path: Path) -> None:
    run = build(recipe(category, "rd++"), tmp_path)
    held = [(run.names[each], group["lr"]) for group in run.optimizer.param_groups for each in group["params"]]
    assert {name.split(".")[1] for name, _ in held} == {"projector", "embedding", "student"}
    assert {rate for name, rate in held if ".projector." in name} == {1e-3}
    assert {rate for name, rate in held if ".projector." not in name} == {5e-3}


def test_stfpm_learns_by_sgd_at_a_rate_of_its_own_and_says_so(
    category: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build(recipe(category, "stfpm", sgd_lr=0.3), tmp_path)
    (group,) = run.optimizer.param_groups
    assert isinstance(run.optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.9, 1e-4)
    assert {run.names[each].split(".")[1] for each in group["params"]} == {"student"}
    with pytest.raises(RecipeError, match=r"train\.lr = 0\.1: .* at train\.sgd_lr \(0\.4\)"):
        build_network(recipe(category, "stfpm", lr=0.1))
    monkeypatch.setattr("edgekd.training.anomaly.trainer.normalise", lambda images, _: images.float() * np.nan)
    with pytest.raises(RecipeError, match=r"lower train\.sgd_lr \(0\.3\)"):
        run.run()


@pytest.fixture(scope="module", params=RELATIVES)
def trained(request: pytest.FixtureRequest, category: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return recipe and report of a whole run of each relative."""
    plan = recipe(category, request.param, steps=20, checkpoint_every=50)
    return plan, edgekd.train(plan, tmp_path_factory.mktemp("trained"), device="cpu")


def test_bundle_has_thresholds_figures_and_a_graph_that_gives_what_the_network_gives(
    trained: Any, category: Path
) -> None:
    from edgekd.training.finish import Portable

    plan, report = trained
    with Bundle.read(report.bundle) as bundle:
        manifest = bundle.manifest
        infer = Portable(bytes(bundle.chunk(manifest.graph)), ("map", "score"))
    assert manifest.thresholds is not None
    assert 0 < manifest.thresholds.low <= manifest.thresholds.image
    assert AnomalyRecipe.from_dict(manifest.recipe or {}).model.method == plan.model.method
    assert manifest.provenance["notes"] == list(report.notes)
    how = "multiplied" if plan.model.method == "stfpm" else "summed"
    assert f"{how} over three scales" in report.page.read_text(encoding="utf-8")
    assert {"image_AUROC", "AUPRO", "aupro_rd4ad"} <= {row["what"] for row in manifest.receipts}
    network = build_network(plan).eval()
    network.load_state_dict(read_tensors(report.weights))
    pixels = np.random.default_rng(0).normal(0, 1, (3, 3, 64, 64)).astype(np.float32)
    for batch in (pixels, pixels[:1]):
        maps, scores = infer(batch)
        with torch.no_grad():
            raw, score = network(torch.from_numpy(batch))
        np.testing.assert_allclose(maps, raw.numpy(), atol=1e-5, rtol=1e-3)
        np.testing.assert_allclose(scores, score.numpy(), atol=1e-5, rtol=1e-3)
    assert float(score.max()) > 1e-3  # else the tolerances above say nothing


def test_bundle_predicts_and_is_built_for_a_target(trained: Any, category: Path, tmp_path: Path) -> None:
    _, report = trained
    built = tmp_path / "model.bin"
    (row,) = edgekd.build(report.bundle, targets="openvino", out=built).artifacts
    assert row.parity.status == "passed"
    found = edgekd.evaluate(built, category, device="openvino")
    assert found.metrics["image_AUROC"] == pytest.approx(report.metrics["test"]["image_AUROC"], abs=0.06)
    with edgekd.load(built, device="openvino") as detector:
        results = detector.predict(sorted(category.glob("test/*/*.png")))
    assert {each.image_size for each in results} == {(60, 72)}
    assert all(np.isfinite(each.score) and each.anomaly_map.shape == (60, 72) for each in results)


def test_run_of_rd_from_before_there_were_other_methods_goes_on(category: Path, tmp_path: Path) -> None:
    plan = recipe(category, "rd")
    build(plan, tmp_path).run()
    identity = read_meta(next((tmp_path / "checkpoints").iterdir()))["identity"]
    assert "method" not in identity["model"]
    assert not {"train.projector_lr", "train.sgd_lr"} & set(identity)
    assert build(plan, tmp_path).step == 5
    with pytest.raises(RecipeError, match="holds another run"):
        build(recipe(category, "rd++"), tmp_path)


def test_recipe_from_before_there_were_other_methods_is_of_rd(category: Path) -> None:
    old = json.loads(json.dumps(recipe(category, "rd").to_dict()))
    old["model"].pop("method")
    old["train"].pop("projector_lr")
    old["train"].pop("sgd_lr")
    assert AnomalyRecipe.from_dict(old) == recipe(category, "rd")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"method": "rd+"}, r"model\.method = 'rd\+'; possible: rd, rd\+\+, stfpm"),
        (
            {"method": "rd++", "target": "both_raw"},
            r"'rd\+\+' has one teacher: use target = 'single' \(now 'both_raw'\)",
        ),
        ({"method": "stfpm", "target": "fused_sg"}, r"'stfpm' has one teacher: use target = 'single'"),
        ({"method": "stfpm", "student": "mirror"}, r"model\.student = 'mirror': .* leave model\.student out"),
        ({"method": "stfpm", "widths": (8, 8, 8)}, r"model\.widths = \(8, 8, 8\): .* leave model\.widths out"),
        ({"method": "stfpm", "embedding": 80}, r"model\.embedding = 80: .* leave model\.embedding out"),
    ],
)
def test_impossible_recipes_say_what_is_possible(model: dict[str, Any], why: str, category: Path) -> None:
    plan = dataclasses.replace(recipe(category, "rd"), model=AnomalyModelConfig())
    plan = dataclasses.replace(plan, model=dataclasses.replace(plan.model, **model))
    with pytest.raises(RecipeError, match=why):
        build_network(plan)
