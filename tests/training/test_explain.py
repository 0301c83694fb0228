"""The explanation page: which student it shows, what its numbers are, and that it is a sound, quiet piece of HTML."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from edgekd import ops
from edgekd._bundle import Bundle
from edgekd._distill import distill
from edgekd._plot import class_color
from edgekd._recipe import DistillConfig, InputConfig, Recipe
from edgekd._train import TrainReport, train
from edgekd.errors import UsageError
from edgekd.training import explain as explain_module
from edgekd.training import run as run_module
from edgekd.training.data.sample import Dataset, Sample
from edgekd.training.explain import write_page
from edgekd.training.explain_draw import heat_map, photograph, scale_colours
from edgekd.training.explain_page import Page, render
from edgekd.training.explain_view import (
    EntryView,
    ImageView,
    LevelView,
    MapView,
    cells_inside,
    chosen,
    correlation,
    view,
)
from edgekd.training.methods import Observed, Scene, Taps
from edgekd.training.outcome import left_by
from edgekd.training.run import make_trainer
from edgekd.training.teacher import TappedNetwork, Teacher
from edgekd.training.trainer import Trainer

Small = Callable[..., Recipe]
CPU = torch.device("cpu")
VOID = {"meta", "img", "br"}


class Strict(HTMLParser):
    """Collects tags; fails where one is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def plan(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe that distils."""
    recipe = small(steps=2, checkpoint_every=1)
    teacher = train(recipe, tmp_path_factory.mktemp("teacher"))
    config = dataclasses.replace(recipe.student, weights=str(teacher.weights))
    return recipe.replace(teacher=config, distill=(DistillConfig(method="pkd"),))


@pytest.fixture(scope="module")
def done(plan: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    """A finished run with its page."""
    return distill(plan, tmp_path_factory.mktemp("runs") / "out", explain=2)


@pytest.fixture
def trainer(plan: Recipe, done: TrainReport, tmp_path: Path) -> Trainer:
    """The finished run once more, in a copy of its folder."""
    shutil.copytree(done.folder, tmp_path / "out")
    return make_trainer(plan, tmp_path / "out", CPU)[0]


def page_of(folder: Path) -> str:
    return (folder / "explain" / "index.html").read_text(encoding="utf-8")


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_page_is_written_after_training(done: TrainReport) -> None:
    assert done.page == done.folder / "explain" / "index.html"
    assert "The student after step 2 of 2" in page_of(done.folder)
    assert "Teacher: csp-tiny, student.safetensors." in page_of(done.folder)
    assert done.to_dict()["page"] == str(done.page)


def test_page_is_sound_html_that_needs_nothing_else(done: TrainReport) -> None:
    text = page_of(done.folder)
    parsed = Strict(text)
    images = parsed.all("img")
    assert len(images) == 2 * (1 + 3 * 2), "two images: the picture, and teacher and student on three levels"
    for each in images:
        assert (each["alt"] or "").strip()
        data = base64.b64decode((each["src"] or "").removeprefix("data:image/png;base64,"), validate=True)
        assert decoded(data).std() > 0
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "iframe", "object", "a"})
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert parsed.text.count("Mean 1, maximum") == 12
    assert "Student energy" in parsed.text


def test_page_of_a_finished_run_trains_and_measures_nothing(
    done: TrainReport, plan: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(Trainer, "_advance", never)
    monkeypatch.setattr(run_module, "write_bundle", never)
    monkeypatch.setattr(run_module, "evaluate", never)
    before, held = done.bundle.read_bytes(), page_of(done.folder)
    again = distill(plan, done.folder, explain=2)
    assert done.bundle.read_bytes() == before
    assert page_of(done.folder) == held, "equal runs give equal pages"
    for split, figures in done.metrics.items():
        known = {name: value for name, value in figures.items() if name != "per_class"}
        assert {name: again.metrics[split][name] for name in known} == pytest.approx(known, nan_ok=True)


@pytest.mark.parametrize("change", ["none", "bundle", "weights", "recipe", "other weights", "step"])
def test_run_counts_as_finished_only_if_it_is_whole(
    done: TrainReport, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = trainer.folder / "model.bin"
    if change == "bundle":
        path.write_bytes(b"half")
    elif change == "weights":
        (trainer.folder / "student.safetensors").unlink()
    elif change == "recipe":
        trainer.recipe = trainer.recipe.replace(name="renamed")
    elif change == "other weights":
        with Bundle.read(path) as bundle:
            other = {**bundle.manifest.provenance, "student": {"state_sha256": "0" * 64}}
            changed = bundle.replace(dataclasses.replace(bundle.manifest, provenance=other))
            changed.write(path)
    elif change == "step":
        trainer.step = 1
    found = left_by(trainer, trainer.folder)
    assert (found is None) == (change != "none")
    if found is not None:
        assert (found.bundle, found.metrics["val"].keys()) == (path, done.metrics["val"].keys())


def test_run_without_its_bundle_is_finished_and_not_trained(
    trainer: Trainer, plan: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_advance", None)  # every step is done
    (trainer.folder / "model.bin").unlink()
    report = distill(plan, trainer.folder, explain=1)
    with Bundle.read(report.bundle) as bundle:
        assert bundle.manifest.name == plan.name


def test_page_shows_the_student_as_it_stands_before_the_first_step(
    plan: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Trainer._advance
    steps: list[int] = []

    def stopped(self: Trainer, batch: Any) -> Any:
        if len(steps) in (0, 2):
            steps.append(-1)
            raise KeyboardInterrupt
        steps.append(self.step)
        return advance(self, batch)

    monkeypatch.setattr(Trainer, "_advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        distill(plan, tmp_path, explain=1)
    assert "The student before training" in page_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        distill(plan, tmp_path, explain=1)
    assert steps == [-1, 0, -1]
    steps[:] = []
    with pytest.raises(KeyboardInterrupt):
        distill(plan, tmp_path, explain=1)
    assert "The student after step 1 of 2" in page_of(tmp_path)


def test_no_resume_shows_the_fresh_student_and_trains_again(
    done: TrainReport, plan: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    monkeypatch.setattr(run_module, "write_bundle", lambda *_: None)
    pages: list[str] = []
    monkeypatch.setattr(explain_module, "announce", pages.append)
    distill(plan, tmp_path / "out", explain=2, resume=False)
    assert [re.search(r"before training|after step \d", text).group() for text in pages] == [  # type: ignore[union-attr]
        "before training", "after step 2",
    ]  # fmt: skip
    assert page_of(tmp_path / "out") == page_of(done.folder)


def test_receipt_is_worked_on_though_the_run_is_finished(
    done: TrainReport, plan: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    asked: list[tuple[int, ...]] = []

    def work(*_: object, seeds: tuple[int, ...], **__: object) -> run_module.Outcome:
        asked.append(seeds)
        return run_module.Outcome(done.bundle, done.weights, done.metrics)

    monkeypatch.setattr("edgekd.training.receipt.run_with_receipt", work)
    report = distill(plan, tmp_path / "out", explain=1, receipt=True, seeds=(0, 1))
    assert asked == [(0, 1)]
    assert report.page is not None
    assert report.page.is_file()


@pytest.mark.parametrize("count", [-1, 65])
def test_impossible_counts_are_refused(plan: Recipe, tmp_path: Path, count: int) -> None:
    with pytest.raises(UsageError, match=f"explains 1 to 64 images .* got {count}; 0: no page"):
        distill(plan, tmp_path / "out", explain=count)
    assert not (tmp_path / "out").exists()


def test_page_is_replaced_whole_or_not_at_all(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trainer.folder / "explain" / "index.html"
    before = path.read_bytes()

    def failing(_page: Page) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(explain_module, "render", failing)
    with pytest.raises(KeyboardInterrupt):
        write_page(trainer, path, 1)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


class Fake:
    """A method with all four maps; the student's attention peaks where the teacher's does not."""

    needs_head = False

    def observe(self, student: Taps, teacher: Taps, _adapters: object, scene: Scene) -> Observed:
        shapes = {level: f.shape[2:] for level, f in teacher.features.items()}
        assert not torch.is_grad_enabled()
        assert {level: f.shape[2:] for level, f in student.features.items()} == shapes
        self.scene = scene

        def peak(value: float, corner: int) -> dict[int, Tensor]:
            maps = {level: torch.ones(1, *shape) for level, shape in shapes.items()}
            for each in maps.values():
                each[0, corner, corner] = value
            return maps

        maps = {"teacher attention": peak(9, 0), "student attention": peak(4, 1), "foreground": peak(0.5, 0),
                "background": peak(0, 0), "<b>own</b>": {3: torch.zeros(1, *shapes[3])}}  # fmt: skip
        return Observed({level: 2 * f for level, f in teacher.features.items()}, maps)


def test_maps_of_a_method_are_shown_on_their_scales(trainer: Trainer) -> None:
    assert trainer.distiller is not None
    fake = Fake()
    trainer.distiller.parts = [trainer.distiller.parts[0]._replace(method=fake)]  # type: ignore[arg-type]
    shown = view(trainer, trainer.train_set.samples[0])
    ((entry,), levels) = shown.entries, shown.entries[0].levels
    assert (entry.name, [each.level for each in levels], levels[0].cells) == ("pkd", [3, 4, 5], (8, 8))
    assert [each.name for each in levels[0].maps] == [
        "teacher attention", "student attention", "foreground", "background", "<b>own</b>",
    ]  # fmt: skip
    assert [(each.low, each.high) for each in levels[0].maps] == [(1, 9), (1, 9), (0.5, 1), (0, 1), (0, 0)]
    assert levels[0].correlation == pytest.approx(1), "aligned is twice the teacher's"
    assert fake.scene.step == 1, "0-based, within the run"
    np.testing.assert_array_equal(fake.scene.boxes[0].numpy(), shown.boxes)
    write_page(trainer, trainer.folder / "x.html", 2)
    text = (trainer.folder / "x.html").read_text()
    parsed = Strict(text)
    assert len(parsed.all("img")) == 2 * (1 + 3 * 4 + 1)
    assert "energy." not in parsed.text, "the fallback is for methods without attention"
    assert "maximum 9" in parsed.text
    assert "<b>own</b>" in parsed.text, "as text, with its letters"
    assert "<b>own" not in text


@pytest.mark.parametrize(("low", "high", "expected"), [(0.1, 11, True), (0.1, 9, False), (0, 900, False)])
def test_peaked_maps_have_logarithmic_colours(
    monkeypatch: pytest.MonkeyPatch, low: float, high: float, expected: bool
) -> None:
    values = np.full((4, 4), max(low, 1), np.float32)
    values[0, 0] = high
    drawn: list[tuple[float, ...]] = []
    monkeypatch.setattr(
        "edgekd.training.explain_page.heat_map",
        lambda _pixels, shown, *ends, **_: drawn.append((float(shown.max()), *ends[:2])) or b"",
    )
    level = LevelView(3, (4, 4), 0.5, (MapView("x", values, low, high, None),))
    entry, nothing = EntryView("m", (level,)), np.zeros((0, 4), np.float32)
    image = ImageView("i", np.zeros((8, 8, 3), np.uint8), nothing, (), (entry,))
    text = render(Page(name="n", student="s", teacher="t", size=(8, 8), classes=("c",), images=(image,)))
    assert ("Colours follow the logarithm." in text) == expected
    ends = tuple(np.log([high, low, high])) if expected else (high, low, high)
    assert drawn == [pytest.approx(ends)]
    assert f"<span>{low:.3g}</span>" in text, "the legend has the values themselves"


def test_entry_whose_time_is_over_is_shown(trainer: Trainer) -> None:
    assert trainer.distiller is not None
    (part,) = trainer.distiller.parts
    trainer.distiller.parts = [part._replace(entry=dataclasses.replace(part.entry, until=0.5))]
    assert [each.name for each in view(trainer, trainer.train_set.samples[0]).entries] == ["pkd"]


def test_networks_are_left_as_they_were(trainer: Trainer) -> None:
    assert trainer.distiller is not None
    trainer.student.train()
    trainer.distiller.train()
    before = {name: tensor.clone() for name, tensor in trainer.student.state_dict().items()}
    view(trainer, trainer.train_set.samples[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.student.state_dict().items())
    assert trainer.student.training
    assert all(module.training for module in trainer.student.modules())
    assert trainer.distiller.training


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_image_and_boxes_are_those_of_validation(
    plan: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, color: str
) -> None:
    recipe = plan.replace(input=InputConfig(height=64, width=96, color=color), teacher=None)
    seen: list[Tensor] = []
    body = torch.nn.Conv2d(3, 4, 3, 8, 1)
    teacher = Teacher(TappedNetwork(body, {"": 8}), recipe.input, {"name": "own"})
    trainer, splits = make_trainer(recipe, tmp_path, CPU, teacher=teacher)
    monkeypatch.setattr(trainer.student, "features", lambda x: seen.append(x) or type(trainer.student).features(
        trainer.student, x))  # fmt: skip
    sample = splits["train"].samples[3]
    shown = view(trainer, sample)
    size = recipe.input
    expected, place = ops.letterbox(
        sample.load(), 64, 96, swap=color == "bgr", mean=size.mean, std=size.std, pad=size.pad
    )
    np.testing.assert_allclose(seen[0][0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(place.undo(shown.boxes), sample.boxes, atol=1e-3)
    inner = shown.pixels[:, place.left : 96 - place.left]
    assert shown.pixels.shape == (64, 96, 3)
    assert abs(inner.mean(axis=(0, 1)) - sample.load().mean(axis=(0, 1))).max() < 3, "RGB, whatever the network takes"


def test_objects_are_the_cells_whose_centre_a_box_holds() -> None:
    boxes = np.array([[0, 0, 16, 9], [20, 20, 27, 32]], np.float32)
    inside = cells_inside(boxes, (4, 4), (32, 32))  # centres at 4, 12, 20, 28
    assert [tuple(cell) for cell in np.argwhere(inside)] == [(0, 0), (0, 1), (2, 2), (3, 2)]
    assert not cells_inside(boxes[:0], (4, 4), (32, 32)).any()


def test_share_on_objects_is_relative_to_the_mean(trainer: Trainer) -> None:
    shown = view(trainer, trainer.train_set.samples[0])
    level = shown.entries[0].levels[0]
    inside = cells_inside(shown.boxes, level.cells, (64, 64))
    for each in level.maps:
        assert each.values.mean() == pytest.approx(1, abs=1e-5)
        assert each.on_objects == pytest.approx(each.values[inside].mean() / each.values.mean())
    both = np.stack([each.values for each in level.maps])
    assert {(each.low, each.high) for each in level.maps} == {(both.min(), both.max())}


def test_correlation_is_pearsons_mean_over_channels() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 5, 4, 6))
    expected = np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(ours, theirs, strict=True)])
    assert correlation(torch.from_numpy(ours), torch.from_numpy(theirs)) == pytest.approx(expected)
    assert correlation(torch.from_numpy(3 * theirs + 7), torch.from_numpy(theirs)) == pytest.approx(1)
    assert correlation(torch.from_numpy(-theirs), torch.from_numpy(theirs)) == pytest.approx(-1)


def test_correlation_of_channels_that_do_not_vary() -> None:
    noise = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    still = torch.full((1, 4, 4), 3.0)
    assert correlation(torch.cat([noise, still]), torch.cat([noise, still])) == pytest.approx(1), "teacher: left out"
    half = torch.cat([noise[:1], still])
    assert correlation(half, noise) == pytest.approx(0.5), "student: counts as 0"
    assert correlation(still, still) is None
    assert correlation(noise[:, :3], noise[:, :3]) is None, "12 cells are too few"


def test_images_are_spread_over_those_with_objects() -> None:
    def sample(number: int, difficult: list[bool]) -> Sample:
        boxes = np.ones((len(difficult), 4), np.float32)
        return Sample(
            Path(f"{number}.png"), (8, 8), boxes, np.zeros(len(difficult), np.int64), np.array(difficult, bool)
        )

    samples = tuple(sample(n, [] if n % 2 else [n == 4, n == 4]) for n in range(10))
    names = [each.path.stem for each in chosen(Dataset("x", "detect", ("a",), samples), 3)]
    assert names == ["0", "6", "8"], "of 0, 2, 6, 8; 4 has only difficult ones"
    assert len(chosen(Dataset("x", "detect", ("a",), samples), 64)) == 4
    assert len(chosen(Dataset("x", "detect", ("a",), samples[1::2]), 2)) == 2, "none has an object"


def test_heat_map_has_the_colours_of_its_scale() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    values = np.array([[0.0, 2.0], [4.0, 4.0]], np.float32)
    drawn = decoded(heat_map(grey, values, 0, 4, np.zeros((0, 4), np.float32)))
    assert drawn.shape == (256, 256, 3)
    colours = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in scale_colours()]
    for cell, place in (((64, 64), 0), ((64, 192), 4), ((192, 64), 8), ((192, 192), 8)):
        np.testing.assert_allclose(drawn[cell], colours[place], atol=2)
    boxed = decoded(heat_map(grey, values, 0, 4, np.array([[8, 8, 24, 24]], np.float32)))
    assert tuple(boxed[32, 60]) == (255, 255, 255)
    assert colours[0][0] < colours[0][2], "viridis begins with blue"
    assert colours[8][0] > colours[8][2] + 50, "and ends with yellow"
    decoded(heat_map(grey, np.full((2, 2), 3.0, np.float32), 3, 3, np.zeros((0, 4), np.float32)))


def test_photograph_has_boxes_in_the_colours_of_their_labels() -> None:
    image = np.full((48, 96, 3), 200, np.uint8)
    drawn = decoded(photograph(image, np.array([[12, 12, 36, 36], [48, 6, 90, 42]], np.float32), (0, 1)))
    assert drawn.shape == (192, 384, 3)
    assert tuple(drawn[48, 96]) == class_color(0)
    assert tuple(drawn[24, 280]) == class_color(1)
    assert tuple(drawn[5, 5]) == (200, 200, 200)


def test_what_others_wrote_is_text() -> None:
    evil = "<script>alert('\"&')</script>"
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    shown = MapView(evil, values, 0, 15, None)
    level = LevelView(3, (4, 4), None, (shown,))
    image = ImageView(
        f'{evil}" onerror="x.jpg', np.zeros((32, 32, 3), np.uint8), np.zeros((1, 4), np.float32), (0,),
        (EntryView(evil, (level,)),),
    )  # fmt: skip
    text = render(Page(name=evil, student=evil, teacher=evil, size=(32, 32), classes=(evil,), images=(image,)))
    parsed = Strict(text)
    assert parsed.all("script") == []
    assert all(set(each) == {"src", "alt"} for each in parsed.all("img"))
    assert parsed.text.lower().count("<script>") == 9
    assert "no r" in parsed.text
    assert "fewer than 16 cells" in parsed.text
