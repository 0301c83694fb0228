"""From a folder to a bundle: held-out images, resuming, thresholds, figures, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

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
from edgekd.cli.main import main
from edgekd.errors import DataError, RecipeError, UsageError
from edgekd.training.anomaly import run as run_module
from edgekd.training.anomaly import trainer as trainer_module
from edgekd.training.anomaly.images import hold_out
from edgekd.training.anomaly.run import read_splits
from edgekd.training.anomaly.trainer import STATISTICS, AnomalyTrainer
from edgekd.training.checkpoint import read_meta, read_tensors
from edgekd.training.data.read import read
from edgekd.training.interrupt import Interrupted

WEIGHTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "weights"
CAFFE = InputConfig(color="bgr", mean=(104.0, 117.0, 123.0), std=(1.0, 2.0, 3.0))
ONE = (AnomalyTeacherConfig(backbone="resnet18", width=0.25),)
TWO = (
    *ONE,
    AnomalyTeacherConfig(backbone="mobilenetv2", width=0.5, input=InputConfig(color="bgr", std=(1.0, 2.0, 3.0))),
)
SMALL = AnomalyModelConfig(widths=(8, 8, 16))


def recipe(category: Path, **changes: Any) -> AnomalyRecipe:
    train = AnomalyTrainConfig(steps=6, batch=4, checkpoint_every=2, threads=1)
    known = {name: changes.pop(name) for name in list(changes) if name in AnomalyRecipe.__dataclass_fields__}
    made = AnomalyRecipe(
        name="stripes",
        data=AnomalyDataConfig(path=str(category)),
        teachers=ONE,
        input=InputConfig(height=64, width=64),
        model=SMALL,
        train=dataclasses.replace(train, **changes),
        predict=AnomalyPredictConfig(alpha=0.1, pixel_alpha=0.01),
    )
    return dataclasses.replace(made, **known)


def two(target: str, category: Path, **changes: Any) -> AnomalyRecipe:
    return recipe(category, teachers=TWO, model=dataclasses.replace(SMALL, target=target, freeze=0.5), **changes)


def build(plan: AnomalyRecipe, folder: Path, **options: Any) -> AnomalyTrainer:
    return AnomalyTrainer(plan, folder, read_splits(plan)["train"], device=torch.device("cpu"), **options)


@pytest.mark.parametrize("target", ["single", "fused_sg", "both_raw"])
def test_run_that_was_stopped_and_resumed_has_the_same_bits(
    target: str, category: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe(category) if target == "single" else two(target, category)
    whole = build(plan, tmp_path / "whole")
    whole.run()
    stopped = build(plan, tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr("edgekd.training.interrupt.StopSignal.requested", lambda _: stopped.step >= 3)
        with pytest.raises(Interrupted, match="step 3 of 6"):
            stopped.run()
    resumed = build(plan, tmp_path / "parts")
    assert resumed.step == 3
    resumed.run()
    for (name, ours), theirs in zip(
        whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    rows = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 6
    assert ("gate.p3" in rows[-1]) == (target != "single")


def test_fused_target_stops_moving_after_its_share_of_the_steps(category: Path, tmp_path: Path) -> None:
    run = build(two("fused_sg", category), tmp_path)
    frozen, states = [], []
    advance = run._advance

    def noted(images: torch.Tensor) -> Any:
        result = advance(images)
        frozen.append(run.network.fusion.frozen)  # type: ignore[union-attr]
        states.append({name: value.clone() for name, value in run.network.fusion.state_dict().items()})  # type: ignore[union-attr]
        return result

    run._advance = noted  # type: ignore[method-assign]
    run.run()
    assert frozen == [False, False, False, True, True, True]
    assert any(not torch.equal(value, states[2][name]) for name, value in states[1].items())
    assert all(torch.equal(value, states[5][name]) for name, value in states[2].items())


@pytest.mark.parametrize("target", ["single", "fused_sg", "both_raw"])
def test_amp_rounds_what_a_step_computes_and_not_what_it_keeps(target: str, category: Path, tmp_path: Path) -> None:
    losses = {}
    for amp in (False, True):
        options = {"amp": amp, "lr": 1e-4, "fusion_lr": 1e-4}
        plan = recipe(category, **options) if target == "single" else two(target, category, **options)
        run = build(plan, tmp_path / str(amp))
        losses[amp] = [float(run._advance(run.batches.batch_at(step))[0]) for step in range(4)]
        assert {value.dtype for value in run.network.state_dict().values() if value.is_floating_point()} == {
            torch.float32
        }
    assert losses[True] != losses[False]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.02)


def test_only_what_learns_is_in_the_optimiser_and_fusion_has_a_rate_of_its_own(category: Path, tmp_path: Path) -> None:
    run = build(two("fused_sg", category), tmp_path)
    held = [(run.names[each], group["lr"]) for group in run.optimizer.param_groups for each in group["params"]]
    names = {name.split(".")[1] for name, _ in held}
    assert names == {"fusion", "embedding", "student"}
    assert {rate for name, rate in held if ".fusion." in name} == {1e-3}
    assert {rate for name, rate in held if ".fusion." not in name} == {5e-3}
    assert run.optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    scales = run.network.equalisers[1].scales
    assert not torch.equal(scales, torch.ones(3))


@pytest.mark.parametrize(("calibrate", "held"), [("never", set()), ("auto", set(STATISTICS))])
def test_checkpoints_hold_of_teachers_only_what_was_fitted(
    calibrate: str, held: set[str], category: Path, tmp_path: Path
) -> None:
    teacher = dataclasses.replace(ONE[0], calibrate=calibrate)
    run = build(recipe(category, steps=2, teachers=(teacher,)), tmp_path)
    run.run()
    (file,) = run.checkpoints.files()
    assert {name.rpartition(".")[2] for name in read_tensors(file) if "teachers." in name} == held


def test_random_teacher_is_fitted_before_training_stays_so_and_the_run_says_it(category: Path, tmp_path: Path) -> None:
    plan = recipe(category, steps=3)
    run = build(plan, tmp_path)
    (teacher,) = run.network.pyramids
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert teacher.calibrated == len(run.batches.samples)
    run.run()
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())
    (again,) = build(plan, tmp_path).network.pyramids  # resumes
    assert again.source == teacher.source
    (note,) = run_module.notes_on([teacher])
    assert "resnet18 (BatchNorm fitted to the normal images)" in note
    assert "--teacher-weights resnet18=FILE" in note


def test_a_teacher_whose_features_hardly_vary_is_warned_of(category: Path, tmp_path: Path) -> None:
    teacher = dataclasses.replace(ONE[0], calibrate="never")
    run = build(recipe(category, teachers=(teacher,)), tmp_path)
    untrained, constant = run_module.notes_on(run.network.pyramids)
    assert "BatchNorm never fitted" in untrained
    assert "shows nearly the same everywhere" in constant
    assert "calibrate = 'always'" in constant
    assert build(recipe(category), tmp_path / "fitted").network.pyramids[0].mean_shares < (0.8, 0.8, 0.8)


def test_another_calibration_is_another_run(category: Path, tmp_path: Path) -> None:
    build(recipe(category, steps=2), tmp_path).run()
    changed = recipe(category, steps=2, teachers=(dataclasses.replace(ONE[0], calibrate="never"),))
    with pytest.raises(RecipeError, match=r"holds another run .*teachers\.calibrate"):
        build(changed, tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lr": 1e-3}, r"train\.lr"),
        ({"teachers": (AnomalyTeacherConfig(backbone="resnet34", width=0.25),)}, "teacher"),
        ({"model": dataclasses.replace(SMALL, student="mirror")}, "model"),
    ],
)
def test_folder_of_another_run_is_refused(changes: dict[str, Any], why: str, category: Path, tmp_path: Path) -> None:
    build(recipe(category, steps=2), tmp_path).run()
    with pytest.raises(RecipeError, match=rf"holds another run .*{why}"):
        build(recipe(category, **{"steps": 2, **changes}), tmp_path)
    assert build(recipe(category, **{"steps": 2, **changes}), tmp_path, resume=False).step == 0


def test_loss_that_is_not_finite_stops_the_run_and_says_what_to_change(
    category: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "normalise", lambda images, _: images.float() * math.nan)
    with pytest.raises(RecipeError, match=r"loss is nan at step 2 of 6; lower train\.lr \(0\.005\)"):
        build(recipe(category), tmp_path).run()


def test_images_held_out_are_normal_disjoint_and_the_same_for_a_seed(category: Path) -> None:
    whole = read(category, "auto", "train")
    train, held = hold_out(whole, 0.2, 0.1, seed=3)
    again, other = hold_out(whole, 0.2, 0.1, seed=3)[1], hold_out(whole, 0.2, 0.1, seed=4)[1]
    names = [{sample.path.name for sample in part.samples} for part in (train, held)]
    assert len(held) == 9  # alpha = 0.1 takes 9; a fifth of 24 would be 5
    assert names[0] | names[1] == {sample.path.name for sample in whole.samples}
    assert not names[0] & names[1]
    assert not any(sample.anomalous for sample in held.samples)
    assert {sample.path for sample in again.samples} == {sample.path for sample in held.samples}
    assert {sample.path for sample in other.samples} != {sample.path for sample in held.samples}
    assert len(hold_out(whole, 0.4, 0.1, seed=3)[1]) == 10


def test_too_few_normal_images_for_alpha_say_what_would_do(category: Path) -> None:
    with pytest.raises(DataError, match=r"24 normal images; .*alpha = 0\.05 takes 19 .*alpha \(0\.077"):
        hold_out(read(category, "auto", "train"), 0.2, 0.05, seed=0)
    hold_out(read(category, "auto", "train"), 0.2, 0.08, seed=0)


@pytest.fixture(scope="module")
def trained(category: Path, tmp_path_factory: pytest.TempPathFactory) -> edgekd.TrainReport:
    folder = tmp_path_factory.mktemp("trained")
    return edgekd.train(recipe(category, steps=40, checkpoint_every=50), folder, device="cpu")


def test_bundle_says_what_was_trained_and_how_it_decides(trained: edgekd.TrainReport) -> None:
    with Bundle.read(trained.bundle) as bundle:
        manifest = bundle.manifest
    assert manifest.task == "anomaly"
    assert [(item.kind, item.shape) for item in manifest.outputs] == [("map", (1, 16, 16)), ("score", ())]
    found = manifest.thresholds
    assert found is not None
    assert (found.alpha, found.pixel_alpha, found.images, found.sigma) == (0.1, 0.01, 9, 1.0)
    assert found.low <= found.image
    assert len(manifest.golden) == 5
    assert manifest.provenance["teachers"][0]["pretrained"] is None
    assert {row["what"] for row in manifest.receipts} >= {"image_AUROC", "AUPRO", "false_alarms"}
    assert AnomalyRecipe.from_dict(manifest.recipe or {}).name == "stripes"
    assert read_meta(trained.weights)["recipe"]["task"] == "anomaly"


def test_graph_gives_what_the_network_gives(trained: edgekd.TrainReport, category: Path) -> None:
    from edgekd._anomaly import network_input
    from edgekd._preprocess import ImageArray
    from edgekd.training.anomaly.build import build_network
    from edgekd.training.finish import Portable

    with Bundle.read(trained.bundle) as bundle:
        infer = Portable(bytes(bundle.chunk(bundle.manifest.graph)), ("map", "score"))
        spec = bundle.manifest.input
    network = build_network(recipe(category)).eval()
    network.load_state_dict(read_tensors(trained.weights))
    samples = read(category, "auto", "test").samples[:3]
    pixels = network_input([ImageArray(sample.load(), "rgb") for sample in samples], spec)
    for batch in (pixels, pixels[:1]):
        maps, scores = infer(batch)
        with torch.no_grad():
            raw, score = network(torch.from_numpy(batch))
        np.testing.assert_allclose(maps, raw.numpy(), atol=1e-4)
        np.testing.assert_allclose(scores, score.numpy(), atol=1e-4)


def test_eval_gives_the_figures_of_the_training_run(trained: edgekd.TrainReport, category: Path) -> None:
    report = edgekd.evaluate(trained.bundle, category, device="reference")
    assert (report.images, report.objects) == (9, 5)
    ours = trained.metrics["test"]
    for name in ("image_AUROC", "pixel_AUROC", "AUPRO", "image_F1_max", "pixel_AP"):
        assert report.metrics[name] == pytest.approx(ours[name], abs=1e-6), name
        assert 0 <= ours[name] <= 1
    assert report.metrics["undefined"] == {}


def test_trained_bundle_predicts_builds_and_is_verified(
    trained: edgekd.TrainReport, category: Path, tmp_path: Path
) -> None:
    built = tmp_path / "model.bin"
    (row,) = edgekd.build(trained.bundle, targets="openvino", out=built).artifacts
    assert row.parity.status == "passed"
    assert row.parity.decisions is not None
    assert row.parity.decisions.same == 5, "four normal images, and one with a defect"
    assert edgekd.verify(built).ran == 2
    report = edgekd.evaluate(built, category, device="openvino")
    with edgekd.load(built, device="openvino") as detector:
        found = [detector.predict(path) for path in sorted(category.glob("test/spot/*.png"))]
    assert {each.image_size for each in found} == {(60, 72)}
    assert np.mean([bool(each.is_anomalous) for each in found]) == report.metrics["found"]


def test_finished_run_keeps_its_bundle_with_what_was_done_to_it(
    trained: edgekd.TrainReport, category: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(trained.folder, folder)
    edgekd.thresholds(folder / "model.bin", image=0.5)
    edgekd.evaluate(folder / "model.bin", category, device="reference", receipt=True)
    before = (folder / "model.bin").read_bytes()
    plan = recipe(category, steps=40, checkpoint_every=50)
    again = edgekd.train(plan, folder, device="cpu")
    assert (folder / "model.bin").read_bytes() == before
    assert (again.bundle, again.weights, again.page) == (
        folder / "model.bin", folder / "network.safetensors", folder / "report.html",
    )  # fmt: skip
    assert again.notes == trained.notes
    for name in ("image_AUROC", "pixel_AUROC", "AUPRO"):
        assert again.metrics["test"][name] == trained.metrics["test"][name]
    looser = dataclasses.replace(plan, predict=AnomalyPredictConfig(alpha=0.1, pixel_alpha=0.05))
    edgekd.train(looser, folder, device="cpu")
    assert (folder / "model.bin").read_bytes() != before, "other thresholds are another bundle"


def test_golden_set_holds_an_image_with_a_defect(trained: edgekd.TrainReport) -> None:
    from edgekd._golden import golden_outputs

    with Bundle.read(trained.bundle) as bundle:
        assert len(bundle.manifest.golden) == 5
        raw = [golden_outputs(bundle, bundle.manifest.golden[row])[0] for row in (0, 4)]
    assert np.abs(raw[0] - raw[1]).max() > 0.01


def test_eval_refuses_what_means_nothing_for_anomalies(trained: edgekd.TrainReport, category: Path) -> None:
    with pytest.raises(UsageError, match="tile, mode: for detectors only"):
        edgekd.evaluate(trained.bundle, category, tile=640, mode="area")


def test_eval_on_a_command_line(
    trained: edgekd.TrainReport, category: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(trained.bundle), str(category), "--device", "reference"]) == 0
    shown = capsys.readouterr().out
    assert "9 images, 5 of them anomalous" in shown
    assert "AUPRO" in shown
    assert main(["eval", str(trained.bundle), str(category / "train"), "--device", "reference"]) == 0
    assert "image_AUROC   no anomalous image" in capsys.readouterr().out
    assert main(["eval", str(trained.bundle), str(category), "--device", "reference", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["oracle"].keys() == {"image", "pixel"}


def test_training_leaves_a_report_and_eval_writes_one_on_request(
    trained: edgekd.TrainReport, category: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained.page == trained.folder / "report.html"
    left = trained.page.read_text(encoding="utf-8")
    assert "the portable graph on ONNX Runtime, fp32" in left
    assert "Note:</b> untrained teacher: resnet18" in left
    page = tmp_path / "pages" / "out.html"
    command = ["eval", str(trained.bundle), str(category), "--device", "reference", "--report", str(page)]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith(f"\n{page}\n")
    assert "reference fp32" in page.read_text(encoding="utf-8")
    assert "Note:</b> untrained teacher: resnet18" in page.read_text(encoding="utf-8")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(page)
    assert "page" not in edgekd.evaluate(trained.bundle, category, device="reference").to_dict()


def test_inspect_shows_the_thresholds_and_not_what_detectors_have(
    trained: edgekd.TrainReport, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(trained.bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [each for each in lines if each.startswith("thresholds")]
    assert "(alpha 0.1), pixel" in line
    assert line.endswith("(alpha 0.01), from 9 normal images; blur 1 px of the map")
    assert not any(each.startswith("predict") or each != each.rstrip() for each in lines)


@pytest.mark.data
@pytest.mark.slow
def test_a_teacher_that_knows_photographs_finds_what_is_no_stripe(category: Path, tmp_path: Path) -> None:
    """Map, mask and image lie on each other, and a defect scores more than what is normal."""
    from edgekd._manifest import Thresholds
    from edgekd.training.anomaly.measure import evaluate
    from edgekd.training.finish import input_spec

    weights = WEIGHTS / "resnet18_imagenet1k_v1_conv1_to_layer3.npz"
    if not weights.is_file():
        pytest.skip(f"no {weights}")
    teacher = AnomalyTeacherConfig(backbone="resnet18", weights=str(weights), stages="layer3")
    wide = AnomalyModelConfig(widths=(32, 32, 64))
    run = build(recipe(category, teachers=(teacher,), model=wide, steps=40, batch=6, lr=2e-3), tmp_path)
    run.run()
    network = run.network.eval()

    def infer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            raw, score = network(torch.from_numpy(pixels))
        return raw.numpy(), score.numpy()

    fitted = Thresholds(image=0.0, pixel=0.0, low=0.0, alpha=0.1, pixel_alpha=0.01, images=9, sigma=1.0)
    found = evaluate(infer, read(category, "auto", "test"), input_spec(run.recipe.input), fitted)
    assert found["image_AUROC"] > 0.9
    assert found["pixel_AUROC"] > 0.9
    assert (found["found"], found["false_alarms"]) == (1.0, 1.0)  # nothing scores 0 or less


@pytest.mark.slow  # torch's exporter takes minutes for two teachers on a busy machine
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("student", "target", "fusion"), [("mirror", "fused_sg", "add"), ("plain", "both_raw", "iaff")]
)
def test_every_kind_of_network_becomes_a_bundle(
    student: str, target: str, fusion: str, category: Path, tmp_path: Path
) -> None:
    model = dataclasses.replace(SMALL, student=student, target=target, fusion=fusion)
    plan = recipe(category, teachers=TWO, model=model, steps=2)
    report = edgekd.train(plan, tmp_path, device="cpu")
    assert edgekd.evaluate(report.bundle, category, device="reference").images == 9


@pytest.fixture
def exported(trained: edgekd.TrainReport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graph of the trained network for any other: exporting takes long."""
    with Bundle.read(trained.bundle) as bundle:
        graph = bytes(bundle.chunk(bundle.manifest.graph))
    monkeypatch.setattr(run_module, "export_onnx", lambda *_, **__: graph)


@pytest.mark.usefixtures("exported")
def test_train_reads_a_recipe_file_and_its_relative_paths(
    category: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = category.parent / "recipe.toml"
    file.write_text(
        'name = "stripes"\ntask = "anomaly"\ndata.path = "stripes"\ninput = {height = 64, width = 64}\n'
        "model.widths = [8, 8, 16]\npredict.alpha = 0.1\n"
        "train = {steps = 40, batch = 4, threads = 1}\n"
        '[[teachers]]\nbackbone = "resnet18"\nwidth = 0.25\n'
    )
    assert main(["train", str(file), "--out", str(tmp_path), "--steps", "2", "--seed", "5", "--device", "cpu"]) == 0
    assert "image_AUROC" in capsys.readouterr().out
    assert main(["distill", str(file), "--out", str(tmp_path / "distilled")]) == 2
    assert "is of task anomaly, whose teachers it names itself: `edgekd train` it" in capsys.readouterr().err
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert (kept["train"]["steps"], kept["train"]["seed"]) == (2, 5)
    assert AnomalyRecipe.from_dict(kept) == dataclasses.replace(
        AnomalyRecipe.read(file), train=dataclasses.replace(AnomalyRecipe.read(file).train, steps=2, seed=5)
    )


@pytest.mark.usefixtures("exported")
def test_set_without_a_test_folder_trains_and_is_not_measured(category: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(category / "train", tmp_path / "set" / "train")
    report = edgekd.train(recipe(tmp_path / "set", steps=2), tmp_path / "out", device="cpu")
    assert report.metrics == {}
    assert report.page is None


@pytest.mark.usefixtures("exported")
def test_thresholds_do_not_depend_on_test_images(category: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(category, tmp_path / "set")
    for image in (tmp_path / "set" / "test" / "good").iterdir():
        shutil.copy(next((category / "test" / "spot").iterdir()), image)
    found = []
    for name, folder in (("one", category), ("other", tmp_path / "set")):
        report = edgekd.train(recipe(folder, steps=2), tmp_path / name, device="cpu")
        with Bundle.read(report.bundle) as bundle:
            found.append((bundle.manifest.thresholds, report.metrics["test"]["false_alarms"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


@pytest.mark.parametrize("split", ["train", "test"])
def test_path_of_one_split_is_refused(split: str, category: Path) -> None:
    with pytest.raises(DataError, match=rf"{split} is one split of a category; name the category's folder: .*stripes$"):
        read_splits(recipe(category / split))


def test_category_may_have_the_name_of_a_split(category: Path, tmp_path: Path) -> None:
    (tmp_path / "test").symlink_to(category, target_is_directory=True)
    assert {name: len(each) for name, each in read_splits(recipe(tmp_path / "test")).items()} == {
        "train": 15,
        "calibration": 9,
        "test": 9,
    }


def test_defect_among_the_training_images_of_a_table_is_refused(category: Path, tmp_path: Path) -> None:
    (tmp_path / "candle" / "Data" / "Images").mkdir(parents=True)
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "candle" / "spoilt.png").write_bytes((category / "test/spot/001.png").read_bytes())
    rows = "object,split,label,image,mask\ncandle,train,anomaly,candle/spoilt.png,\n"
    (tmp_path / "split_csv" / "1cls.csv").write_text(rows)
    with pytest.raises(DataError, match=r"1 training images are marked as anomalous \(.*spoilt\.png"):
        read_splits(recipe(tmp_path / "candle"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": AnomalyModelConfig(target="both")}, r"model\.target = 'both'; possible: fused_sg, both_raw, single"),
        ({"model": AnomalyModelConfig(student="big")}, r"model\.student = 'big'; possible: plain, mirror"),
        ({"model": AnomalyModelConfig(fusion="mean")}, r"model\.fusion = 'mean'; possible: iaff, add"),
        ({"model": AnomalyModelConfig(loss="l2")}, r"model\.loss = 'l2'; possible: global, per_location"),
        ({"model": AnomalyModelConfig(freeze=2.0)}, r"model\.freeze should be at least 0 and at most 1, got 2\.0"),
        ({"model": AnomalyModelConfig(widths=(0, 8, 8))}, r"model\.widths\[0\] should be at least 1, got 0"),
        ({"model": AnomalyModelConfig(storage="int4")}, r"model\.storage = 'int4'; possible: fp32, fp16"),
        ({"model": AnomalyModelConfig(reduction=0)}, r"model\.reduction should be at least 1"),
        ({"model": AnomalyModelConfig(embedding=30)}, r"model\.embedding should be 0 .* or a multiple of 4, got 30"),
        (
            {"teachers": (AnomalyTeacherConfig(backbone="resnet18", calibrate="yes"),)},
            r"teachers\.calibrate = 'yes'; possible: auto, always, never",
        ),
        (
            {"teachers": (AnomalyTeacherConfig(backbone="squeezenet1.1", calibrate="always"),)},
            r"'squeezenet1\.1' has no BatchNorm to fit; use 'auto' or 'never'",
        ),
        ({"teachers": TWO}, r"target = 'single' takes 1 \[\[teachers\]\], the recipe has 2"),
        (
            {"teachers": (), "model": AnomalyModelConfig(target="fused_sg")},
            r"takes 2 .* the recipe has 0",
        ),
        ({"teachers": TWO, "model": AnomalyModelConfig(target="both_raw", student="mirror")}, "use student = 'plain'"),
        ({"teachers": (AnomalyTeacherConfig(backbone="csp-tiny"),)}, "'csp-tiny' backbone is no anomaly teacher"),
        (
            {"input": InputConfig(height=64, width=100)},
            r"input\.width = 100 should be .* for example 96",
        ),
        ({"steps": 0}, r"train\.steps should be at least 1"),
        ({"batch": 1}, r"train\.batch should be at least 2"),
    ],
)
def test_impossible_recipes_say_what_is_possible(
    changes: dict[str, Any], why: str, category: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=why):
        build(recipe(category, **changes), tmp_path)
