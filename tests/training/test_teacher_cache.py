"""Cached teacher features: the same bits without the teacher."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import edgekd
from edgekd._recipe import DistillConfig, InputConfig, ModelConfig, Recipe
from edgekd.errors import RecipeError, WeightsError
from edgekd.training import detector_file
from edgekd.training.checkpoint import read_tensors
from edgekd.training.detector_file import cached_teacher, write_detector
from edgekd.training.guides import teachers_of
from edgekd.training.models import build_model
from edgekd.training.resume import RunIdentity
from edgekd.training.teacher import TappedNetwork, Teacher
from edgekd.training.teacher_cache import CachedTeacher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = InputConfig(height=64, width=64)
CONFIG = ModelConfig(backbone="csp-tiny", width=0.25, channels=24, head_depth=1)


def network() -> Teacher:
    return Teacher(build_model(CONFIG, 2, SIZE, seed=7), SIZE, {})


def images(seed: int = 0, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def cached(folder: Path, load: Callable[[], Teacher] = network, **identity: Any) -> CachedTeacher:
    return CachedTeacher(folder, {"weights": "w", **identity}, load)


def refuse() -> Teacher:
    raise AssertionError("the teacher was built")


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_features_from_the_disk_are_the_teachers_bit_for_bit_in_one_memory_layout(
    tmp_path: Path, amp: torch.dtype | None
) -> None:
    direct = network().look(images(), SIZE, head=False, amp=amp)
    cached(tmp_path).look(images(), SIZE, head=False, amp=amp)
    reader = cached(tmp_path, refuse)
    found = reader.look(images(), SIZE, head=False, amp=amp)
    assert (reader.hits, reader.misses) == (3, 0)
    assert reader.levels == (3, 4, 5)
    assert reader.channels == {3: 24, 4: 24, 5: 24}
    for level in reader.levels:
        assert torch.equal(found.features[level], direct.features[level])
        assert found.features[level].stride() == direct.features[level].stride()
        assert found.features[level].dtype == torch.float32


@pytest.mark.parametrize("head", ["dense", "retina", "yolo"])
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_head_on_cached_features_says_what_the_teacher_says_bit_for_bit(
    tmp_path: Path, amp: torch.dtype | None, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, head=head)
    teacher = Teacher(build_model(config, 2, SIZE, seed=7), SIZE, {})
    direct = teacher.look(images(), SIZE, head=True, amp=amp)
    filled = cached(tmp_path, lambda: teacher).look(images(), SIZE, head=True, amp=amp)
    monkeypatch.setattr(teacher, "look", lambda *_, **__: refuse())
    found = cached(tmp_path, lambda: teacher).look(images(), SIZE, head=True, amp=amp)
    assert direct.head is not None
    for other in (filled, found):
        assert other.network is teacher.network
        assert other.head is not None
        for ours, theirs in zip(direct.head, other.head, strict=True):
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))


def test_order_and_batch_do_not_matter_but_pixels_colour_and_arithmetic_do(tmp_path: Path) -> None:
    cached(tmp_path).look(images(), SIZE, head=False)
    reader = cached(tmp_path, refuse)
    swapped = reader.look(images()[[2, 0]], SIZE, head=False)
    direct = network().look(images(), SIZE, head=False)
    assert torch.equal(swapped.features[4], direct.features[4][[2, 0]])
    other = images()
    other[0, 0, 0, 0] ^= 1
    bgr = dataclasses.replace(SIZE, color="bgr")
    for asked in ((other, SIZE, None), (images(), bgr, None), (images(), SIZE, torch.bfloat16)):
        with pytest.raises(AssertionError, match="the teacher was built"):
            reader.look(asked[0], asked[1], head=False, amp=asked[2])


def test_half_the_bytes_where_no_bit_is_lost(tmp_path: Path) -> None:
    for name, amp in (("whole", None), ("half", torch.bfloat16)):
        cached(tmp_path / name).look(images(count=1), SIZE, head=False, amp=amp)
    whole, half = (next((tmp_path / name).rglob("*.safetensors")).stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole


def test_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    cached(tmp_path).look(images(), SIZE, head=False)
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    mender = cached(tmp_path)
    found = mender.look(images(), SIZE, head=False)
    assert (mender.hits, mender.misses) == (2, 1)
    assert torch.equal(found.features[3], network().look(images(), SIZE, head=False).features[3])
    assert not list(tmp_path.rglob("*.partial"))
    assert cached(tmp_path, refuse).look(images(), SIZE, head=False)


def test_cache_of_another_teacher_is_refused(tmp_path: Path) -> None:
    cached(tmp_path)
    said = r"features of another teacher \(weights: 'w' there, 'v' now\): use another --cache"
    with pytest.raises(RecipeError, match=said):
        cached(tmp_path, weights="v")
    held = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps({**held, "format": 0}))
    with pytest.raises(RecipeError, match="is a cache of format 0, this edgekd takes 1: use another --cache"):
        cached(tmp_path)
    del held["levels"]
    for text in ("{}", json.dumps(held)):
        (tmp_path / "cache.json").write_text(text)
        with pytest.raises(RecipeError, match=r"cache.json is no description of a feature cache: use another --cache"):
            cached(tmp_path)


def test_features_of_an_unknown_teacher_are_not_taken(tmp_path: Path) -> None:
    cached(tmp_path / "cache").look(images(), SIZE, head=False)
    (tmp_path / "cache" / "cache.json").unlink()
    with pytest.raises(RecipeError, match=r"no cache.json that says of which teacher: use another --cache, or remove"):
        cached(tmp_path / "cache", weights="v")
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="file is a file, a cache of features is a folder: use another --cache"):
        cached(tmp_path / "file")


def test_teacher_that_filled_the_description_moves_to_the_device(tmp_path: Path) -> None:
    network: Any = cached(tmp_path).to(torch.device("meta")).teacher.network
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_same_network_at_other_taps_is_another_teacher(small: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = small(distill=(DistillConfig(method="pkd"),))
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 8, 1), nn.ReLU())
    teachers = {tap: Teacher(TappedNetwork(body, {tap: 8}), SIZE, {}) for tap in ("0", "1")}
    teachers_of(recipe, teachers["0"], 2, tmp_path)
    with pytest.raises(RecipeError, match=r"another teacher \(taps: \{'0': 8\} there, \{'1': 8\} now\)"):
        teachers_of(recipe, teachers["1"], 2, tmp_path)
    mine, other = (RunIdentity(recipe, {}, {"teacher": each}) for each in teachers.values())
    with pytest.raises(RecipeError, match=r"another run \(teacher taps: \{'1': 8\} there, \{'0': 8\} now"):
        mine.check(json.loads(json.dumps(other.to_dict())), tmp_path)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, small: Callable[..., Recipe]) -> Recipe:
    """A recipe whose teacher was trained, with augmentation."""
    folder = tmp_path_factory.mktemp("teacher")
    plan = small(steps=2, student=CONFIG)
    weights = edgekd.train(plan, folder).weights
    return small(distill=(DistillConfig(method="pkd"),), teacher=dataclasses.replace(CONFIG, weights=str(weights)))


def rows(folder: Path) -> list[dict[str, float]]:
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if not k.endswith("_ms")} for row in lines]


def test_run_from_a_full_cache_needs_no_teacher_and_has_the_same_bits(
    taught: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {name: tmp_path / name for name in ("plain", "filling", "cached")}
    cache = tmp_path / "cache"
    edgekd.distill(taught, runs["plain"])
    edgekd.distill(taught, runs["filling"], cache=cache)
    assert taught.teacher is not None
    digest = json.loads((cache / "teacher" / "cache.json").read_text())["identity"]["file_sha256"]
    absent = dataclasses.replace(taught.teacher, weights=str(tmp_path / "gone.safetensors"), sha256=digest)
    monkeypatch.setattr(detector_file, "load_teacher", lambda *_: refuse())
    edgekd.distill(taught.replace(teacher=absent), runs["cached"], cache=cache)
    first, *others = ({**read_tensors(folder / "student.safetensors")} for folder in runs.values())
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    assert rows(runs["plain"]) == rows(runs["filling"]) == rows(runs["cached"])


def test_cache_does_not_hide_that_the_weights_have_another_hash_than_the_recipe_says(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    write_detector(path, build_model(CONFIG, 2, SIZE, seed=7), ("a", "b"))
    config = dataclasses.replace(CONFIG, weights=str(path))
    cached_teacher(config, SIZE, 2, tmp_path / "cache")
    with pytest.raises(WeightsError, match=r"has SHA-256 .* the recipe says 00"):
        cached_teacher(dataclasses.replace(config, sha256="00" * 32), SIZE, 2, tmp_path / "cache")


@pytest.mark.parametrize("method", ["nsd", "crosskd"])
def test_method_that_runs_the_head_learns_from_a_cache_what_it_learns_without(
    taught: Recipe, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"remaining": 1} if method == "crosskd" else {}
    recipe = taught.replace(distill=(DistillConfig(method=method, options=options),))
    runs = {name: tmp_path / name for name in ("plain", "filling", "cached")}
    edgekd.distill(recipe, runs["plain"])
    edgekd.distill(recipe, runs["filling"], cache=tmp_path / "cache")
    monkeypatch.setattr(Teacher, "look", lambda *_, **__: refuse())
    edgekd.distill(recipe, runs["cached"], cache=tmp_path / "cache")
    first, *others = (read_tensors(folder / "student.safetensors") for folder in runs.values())
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    assert rows(runs["plain"]) == rows(runs["filling"]) == rows(runs["cached"])


def test_missing_weights_are_refused_without_a_hash_and_where_the_head_runs(taught: Recipe, tmp_path: Path) -> None:
    assert taught.teacher is not None
    cache = tmp_path / "cache"
    gone = dataclasses.replace(taught.teacher, weights=str(tmp_path / "gone.safetensors"))
    with pytest.raises(WeightsError, match=r"no weights at .*gone.safetensors; with a cache .* sha256"):
        edgekd.distill(taught.replace(teacher=gone), tmp_path / "a", cache=cache)
    nowhere = dataclasses.replace(taught.teacher, weights="none")
    with pytest.raises(RecipeError, match=r"\[teacher\] needs trained weights"):
        edgekd.distill(taught.replace(teacher=nowhere), tmp_path / "a", cache=cache)
    edgekd.distill(taught, tmp_path / "a", cache=cache)
    digest = json.loads((cache / "teacher" / "cache.json").read_text())["identity"]["file_sha256"]
    hashed = dataclasses.replace(gone, sha256=digest)
    heads = taught.replace(teacher=hashed, distill=(DistillConfig(method="nsd"),))
    with pytest.raises(WeightsError, match=r"no weights of the \[teacher\] at .*gone.safetensors"):
        edgekd.distill(heads, tmp_path / "b", cache=cache)
    assert not (tmp_path / "b" / "metrics.jsonl").exists()
