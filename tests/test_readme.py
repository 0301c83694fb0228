"""README and docs: commands that exist, links that lead somewhere, figures that are in the result files."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from edgekd import AnomalyRecipe, Recipe
from edgekd._sidecar import KEYS, read_sidecar
from edgekd._sources import open_source
from edgekd.cli.main import COMMANDS, parser

from .conformance import bundles

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "AGENTS.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        ROOT / "benchmarks" / "README.md",
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_shown_parse(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for line in shown:
        words = shlex.split(line, comments=True)
        if words[:1] == ["edgekd"]:
            parser().parse_args(words[1:])  # exits with 2 on a flag that does not exist
    for command in re.findall(r"`edgekd ([a-z]+)[ `]", text):
        assert command in (*COMMANDS, "bundle"), f"{page.name} mentions edgekd {command}"  # bundle: what is signed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shell_lines_are_sound(page: Path) -> None:
    shown = "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    found = subprocess.run(["bash", "-n"], input=shown, text=True, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr


def test_pipelines_of_the_jetson_guide_are_taken_for_pipelines() -> None:
    page = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith("edgekd predict") and " ! " in line]
    pipelines = [shlex.split(line)[3] for line in shown]
    scope: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], scope)
    assert pipelines == [scope["CSI"].format(number=0, width=1280, height=720, fps=30)]
    assert open_source(pipelines[0], "bgr", Event()).live


def test_the_jetson_guide_installs_what_a_board_needs() -> None:
    page = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    shown = re.findall(r"^pip install (.+)$", page, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (numpy,) = [item for item in project["dependencies"] if item.startswith("numpy")]
    wanted, edgekd = shlex.split(shown[0])  # at once: an older one of the system's, or onnx, would bring NumPy 2
    assert wanted == f"{numpy},<2"
    extra = re.fullmatch(r"\.\[(\w+)\]", edgekd)
    assert extra is not None
    on_arm = [item for item in project["optional-dependencies"][extra[1]] if "x86_64" not in item]
    assert {re.split(r"\W", item)[0] for item in on_arm} == {"pycuda", "onnx", "pillow"}


def test_what_the_jetson_guide_quotes_is_said() -> None:
    page = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \|", page.split("## When it does not work")[1].split("## Boards")[0], re.MULTILINE)
    quoted = [text for row in rows if "NumPy 1.x" not in row for text in re.findall("`(.+?)`", row)]
    parts = {part.strip() for text in quoted for part in re.split(r"\.\.\.|process", text)}
    sources = [
        path.read_text(encoding="utf-8") for name in ("edgekd", "targets") for path in (ROOT / name).rglob("*.py")
    ]
    said = re.sub(r'"\n\s+f?"', "", "".join(sources))  # messages go on in the next line
    assert {part for part in parts if part not in said} == set()
    assert len(parts) >= 8


@pytest.mark.parametrize("page", ["anomaly.md", "exactness.md", "distillation.md", "jetson.md", "streams.md"])
def test_python_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where there is what the snippets read
    bundles.portable(anomaly=True).write("model.bin")
    Image.fromarray(bundles.pictures(1)[0]).save("part.png")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_recipes_in_the_docs_are_recipes_of_methods_that_exist() -> None:
    from edgekd.training import methods

    page = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        recipe = Recipe.from_dict(tomllib.loads(block))
        for entry in recipe.distill:
            methods.method(entry.method, **entry.options)
            assert entry.teacher in recipe.all_teachers()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) >= set(methods.names())


def test_recipes_of_anomaly_detection_in_the_docs_can_be_built() -> None:
    from edgekd.training.anomaly import build

    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "anomaly.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        recipe = AnomalyRecipe.from_dict(tomllib.loads(block))
        random = tuple(dataclasses.replace(each, weights="none") for each in recipe.teachers)
        build.build_network(dataclasses.replace(recipe, teachers=random))


def test_sidecars_in_the_docs_can_be_read(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "import.md").read_text(encoding="utf-8"), re.DOTALL)
    said: set[str] = set()
    for block in blocks:
        (tmp_path / "model.toml").write_text(block, encoding="utf-8")
        said |= set(read_sidecar(tmp_path / "model.toml")) | set(tomllib.loads(block))
    assert said == set(KEYS), "the page shows every key"


def test_costs_of_anomaly_detection_in_the_docs_are_those_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "anomaly_predict.json").read_text(encoding="utf-8"))
    median = measured["cases"]["1080p, three defects"]["median_ms"]
    page = " ".join((ROOT / "docs" / "anomaly.md").read_text(encoding="utf-8").split())
    assert f"to 256x256 takes {median['letterbox']:.2f} ms and blur" in page
    assert f"regions {median['regions']:.2f} ms on one core" in page


def test_makefile_has_the_targets_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_first_screen_of_the_readme_has_the_two_commands() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20]
    assert any("make demo" in line for line in first)
    assert any("make test" in line for line in first)


def test_the_readme_shows_the_demo_that_is_in_the_results() -> None:
    report = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in report["networks"]:
        assert re.search(rf"{re.escape(row['name'])}.* {100 * row['ap']:.1f} +{100 * row['ap50']:.1f} ", shown), row
    for row in report["targets"]:
        figure = "built, not run" if row["p50_ms"] is None else f"{row['p50_ms']:.2f} ms"
        assert re.search(rf"{row['target']} +{row['precision']} .*{re.escape(figure)}", shown), row
