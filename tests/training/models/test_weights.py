"""Local weights: formats, digests, partial files, and what is refused."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from edgekd._recipe import InputConfig, ModelConfig
from edgekd.errors import WeightsError
from edgekd.training.models import build_model, load_detector, load_weights
from edgekd.training.models.backbones import build_backbone

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, Tensor]


def saved_safetensors(state: State, folder: Path) -> Path:
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "w.safetensors")
    return folder / "w.safetensors"


def saved_npz(state: State, folder: Path) -> Path:
    np.savez(folder / "w.npz", **{name: value.numpy() for name, value in state.items()})
    return folder / "w.npz"


def saved_pth(state: State, folder: Path) -> Path:
    torch.save(state, folder / "w.pth")
    return folder / "w.pth"


def saved_nested_pth(state: State, folder: Path) -> Path:
    torch.save({"state_dict": state, "epoch": 3}, folder / "w.pt")
    return folder / "w.pt"


def donor() -> State:
    torch.manual_seed(5)
    state = build_backbone("resnet18", 0.125).state_dict()
    for name in state:
        if name.endswith("running_mean"):
            state[name] = torch.randn_like(state[name])
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def assert_loaded(module: torch.nn.Module, state: State) -> None:
    held = module.state_dict()
    for name, value in state.items():
        torch.testing.assert_close(held[name], value.to(held[name].dtype), msg=name)


@pytest.mark.parametrize("save", [saved_safetensors, saved_npz, saved_pth, saved_nested_pth])
def test_load_when_the_file_is_whole_then_every_tensor_arrives(
    save: Callable[[State, Path], Path], tmp_path: Path
) -> None:
    state = donor()
    path = save(state, tmp_path)
    backbone = build_backbone("resnet18", 0.125)
    report = load_weights(backbone, path)
    assert_loaded(backbone, state)
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (report.kind, report.tensors, report.values) == ("backbone", 100, sum(v.numel() for v in state.values()))
    assert [name for name in report.missing if not name.endswith("num_batches_tracked")] == []


def test_load_when_tensors_are_half_precision_then_they_are_cast(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in donor().items()}
    backbone = build_backbone("resnet18", 0.125)
    load_weights(backbone, saved_safetensors(state, tmp_path))
    assert_loaded(backbone, state)
    assert backbone.conv1.weight.dtype == torch.float32


def test_load_when_the_digest_is_right_or_wrong_then_only_the_right_one_passes(tmp_path: Path) -> None:
    path = saved_npz(donor(), tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load_weights(build_backbone("resnet18", 0.125), path, sha256=digest.upper())
    with pytest.raises(WeightsError, match=f"SHA-256 {digest}, the recipe says 00"):
        load_weights(build_backbone("resnet18", 0.125), path, sha256="00" * 32)


def test_load_when_the_file_ends_at_layer3_then_only_the_rest_stays_random(tmp_path: Path) -> None:
    part = {name: value for name, value in donor().items() if not name.startswith("layer4.")}
    path = saved_npz(part, tmp_path)
    backbone = build_backbone("resnet18", 0.125)
    before = backbone.layer4[0].conv1.weight.clone()
    report = load_weights(backbone, path, stages="layer3")
    assert_loaded(backbone, part)
    torch.testing.assert_close(backbone.layer4[0].conv1.weight, before)
    assert report.missing
    assert all(name.startswith("layer4.") for name in report.missing)
    with pytest.raises(WeightsError, match=r"25 missing: layer4\.0\.conv1\.weight.*say up to where with `stages`"):
        load_weights(build_backbone("resnet18", 0.125), path)
    with pytest.raises(WeightsError, match=r"74 missing: bn1\.weight, "):
        load_weights(
            build_backbone("resnet18", 0.125),
            saved_npz({"conv1.weight": part["conv1.weight"]}, tmp_path),
            stages="layer3",
        )


def test_load_when_the_classifier_is_in_the_file_then_it_is_ignored_and_reported(tmp_path: Path) -> None:
    state = {**donor(), "fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
    report = load_weights(build_backbone("resnet18", 0.125), saved_pth(state, tmp_path))
    assert report.ignored == ("fc.weight", "fc.bias")


def test_load_when_tensors_do_not_fit_then_the_error_counts_and_names_them_and_nothing_changes(tmp_path: Path) -> None:
    state = donor()
    del state["bn1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(3, 3, 7, 7)
    backbone = build_backbone("resnet18", 0.125)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    pattern = (
        r"1 unexpected: layer9\.weight; 1 missing: bn1\.weight; 1 of another shape: conv1\.weight is \(3, 3, 7, 7\)"
    )
    with pytest.raises(WeightsError, match=pattern):
        load_weights(backbone, saved_npz(state, tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_load_when_a_value_is_not_finite_then_it_is_refused(tmp_path: Path) -> None:
    state = donor()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(WeightsError, match=r"not finite in layer1\.0\.conv1\.weight"):
        load_weights(build_backbone("resnet18", 0.125), saved_npz(state, tmp_path))


def test_load_when_stages_is_unknown_then_the_possible_ones_are_listed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'layer7' is unknown.*all, conv1, bn1, layer1"):
        load_weights(build_backbone("resnet18", 0.125), saved_npz(donor(), tmp_path), stages="layer7")


def test_load_when_the_file_is_missing_then_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r'no weights file at .*w\.npz.*weights = "none"'):
        load_weights(build_backbone("resnet18", 0.125), tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("w.safetensors", b"\xff" * 64, "no readable safetensors"),
        ("w.npz", b"PK\x03\x04 not a zip", "no readable .npz"),
        ("w.npz", b"", "no readable .npz"),
        ("w.pth", b"not a checkpoint", "not a .pth of tensors alone"),
        ("w.onnx", b"x", "the format '.onnx' is unknown; possible: .safetensors, .npz, .pth, .pt"),
    ],
)
def test_load_when_the_file_is_damaged_or_foreign_then_it_is_a_weights_error(
    name: str, content: bytes, pattern: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=pattern):
        load_weights(build_backbone("resnet18", 0.125), tmp_path / name)


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


def test_load_when_a_pth_or_npz_carries_code_then_it_never_runs(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    torch.save({"conv1.weight": Payload(evil)}, tmp_path / "w.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Payload(evil)))
    np.savez(tmp_path / "w.npz", **{"conv1.weight": np.array([Payload(evil)], dtype=object)})
    for name in ("w.pth", "old.pth", "w.npz"):
        with pytest.raises(WeightsError):
            load_weights(build_backbone("resnet18", 0.125), tmp_path / name)
    assert not evil.exists()


def test_load_when_a_pth_maps_names_to_other_things_then_it_is_refused(tmp_path: Path) -> None:
    torch.save({"lr": 0.1}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="should map names to tensors"):
        load_weights(build_backbone("resnet18", 0.125), tmp_path / "w.pth")


CONFIG = ModelConfig(backbone="csp-tiny", width=0.25, channels=8, head_depth=1)
SIZE = InputConfig(height=32, width=32)


def test_build_model_when_the_file_is_a_whole_detector_then_all_of_it_is_loaded(tmp_path: Path) -> None:
    trained = build_model(CONFIG, 2, SIZE, seed=1)
    path = saved_safetensors(trained.state_dict(), tmp_path)
    again = build_model(
        ModelConfig(backbone="csp-tiny", width=0.25, channels=8, head_depth=1, weights=str(path)), 2, SIZE
    )
    assert all(
        torch.equal(a, b) for a, b in zip(trained.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert again.weights is not None
    assert again.weights.kind == "detector"
    other = build_model(CONFIG, 3, SIZE)
    with pytest.raises(WeightsError, match=r"of another shape: head\.class_predictors"):
        load_detector(other, path)


def test_build_model_when_the_file_is_a_backbone_then_neck_and_head_stay_random(tmp_path: Path) -> None:
    torch.manual_seed(9)
    donor_state = build_backbone("csp-tiny", 0.25).state_dict()
    path = saved_npz(donor_state, tmp_path)
    config = ModelConfig(backbone="csp-tiny", width=0.25, channels=8, head_depth=1, weights=str(path))
    model = build_model(config, 2, SIZE, seed=1)
    assert_loaded(model.backbone, donor_state)
    plain = build_model(CONFIG, 2, SIZE, seed=1)
    assert torch.equal(
        model.head.state_dict()["class_tower.convs.0.weight"], plain.head.state_dict()["class_tower.convs.0.weight"]
    )


DATA = Path(os.environ.get("EDGEKD_DATA", Path(__file__).parents[4] / "shared" / "data"))


def classify_mobilenetv2(path: Path, image: Path) -> str:
    """Return the label of an image by the real MobileNetV2: our features, then the file's own classifier."""
    from PIL import Image

    backbone = build_backbone("mobilenetv2-tf").eval()
    load_weights(backbone, path)
    with np.load(path) as archive:
        last = [
            torch.from_numpy(archive[f"{name}.{kind}"])
            for name in ("features.18.0", "classifier.1")
            for kind in ("weight", "bias")
        ]
    with Image.open(image) as opened:
        pixels = np.array(opened.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    with torch.no_grad():
        features = backbone(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1)[-1]
        pooled = F.relu6(F.conv2d(features, last[0], last[1])).mean(dim=(2, 3))
        best = int(F.linear(pooled, last[2], last[3]).argmax())
    return (path.parent / "imagenet_labels_1001.txt").read_text().splitlines()[best].strip()


@pytest.mark.data
@pytest.mark.parametrize(
    ("number", "label"), [("000000003661", "banana"), ("000000064462", "ski"), ("000000206411", "toilet seat")]
)
def test_mobilenetv2_tf_when_given_real_weights_then_it_knows_real_photos(number: str, label: str) -> None:
    path = DATA / "weights" / "mobilenet_v2_imagenet_dequant_fp32.npz"
    if not path.is_file():
        pytest.skip(f"no real weights at {path}")
    image = next((DATA / "smoke" / "coco20").rglob(f"{number}.jpg"))
    assert classify_mobilenetv2(path, image) == label


@pytest.mark.data
@pytest.mark.parametrize(
    ("backbone", "file", "stages"),
    [
        ("resnet18", "resnet18_imagenet1k_v1_conv1_to_layer3.npz", "layer3"),
        ("squeezenet1.1", "squeezenet1_1_imagenet.npz", "all"),
    ],
)
def test_real_weights_when_loaded_then_every_stage_in_the_file_fits(backbone: str, file: str, stages: str) -> None:
    path = DATA / "weights" / file
    if not path.is_file():
        pytest.skip(f"no real weights at {path}")
    report = load_weights(build_backbone(backbone), path, stages=stages)
    assert report.values == {"resnet18": 2_787_264, "squeezenet1.1": 722_496}[backbone]
