"""The page in a real browser: a picture, and a camera that Chromium plays."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import browser
from .conftest import PICTURE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Running

pytest.importorskip("starlette")
TOKEN = "a-token-of-some-length"


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    found = browser.find()
    if found is None:
        pytest.skip("Chromium is not installed")
    with browser.browse(found, tmp_path_factory.mktemp("profile")) as page:
        yield page


def open_page(page: browser.Page, running: Running) -> None:
    page.call("Page.navigate", url=f"http://127.0.0.1:{running.port}/")
    page.wait_for("document.title === 'conformance'")  # the script has run


def keep(page: browser.Page, name: str) -> None:
    """Keep a picture of the page for who wants to look at it."""
    if folder := os.environ.get("EDGEKD_SCREENSHOTS"):
        page.screenshot(Path(folder) / f"{name}.png")


def test_picture_is_shown_with_what_predict_finds(
    serving: Callable[..., Running], page: browser.Page, tmp_path: Path
) -> None:
    running = serving()
    picture = tmp_path / "picture.png"
    picture.write_bytes(PICTURE)
    expected = running.detector.predict(PICTURE, conf=0.25)
    open_page(page, running)
    page.choose("#file", picture)
    page.wait_for("document.getElementById('frames').textContent === '1'")
    assert page.evaluate("document.getElementById('count').textContent") == str(len(expected))
    assert page.evaluate("[view.canvas.width, view.canvas.height]") == [120, 90]
    shown = page.evaluate("[...document.querySelectorAll('#list li')].map((row) => row.textContent)")
    rows = [f"{name} {score:.2f}" for name, score in zip(expected.names, expected.scores, strict=True)]
    assert shown == rows[:20]
    x1, _, x2, y2 = expected.boxes[0]
    shade = page.evaluate(f"(view.fillStyle = color({expected.labels[0]}), view.fillStyle)").lstrip("#")
    ink = page.evaluate(f"[...view.getImageData({(x1 + x2) // 2}, {math.floor(y2 - 0.5)}, 1, 1).data]")
    wanted = [int(shade[i : i + 2], 16) for i in (0, 2, 4)]
    assert max(abs(a - b) for a, b in zip(ink, wanted, strict=False)) < 80, "the best box is drawn, in its colour"
    keep(page, "picture")
    assert page.problems == []


def test_camera_is_followed_until_it_is_stopped(serving: Callable[..., Running], page: browser.Page) -> None:
    running = serving()
    open_page(page, running)
    page.evaluate("document.getElementById('camera').click()")
    page.wait_for("Number(document.getElementById('frames').textContent) >= 5")
    keep(page, "camera")
    page.evaluate("document.getElementById('stop').click()")
    page.wait_for("running === 0 && document.getElementById('stop').disabled")
    page.wait_for("new Promise((done) => setTimeout(() => done(true), 500))")
    before = page.evaluate("frames")
    page.wait_for("new Promise((done) => setTimeout(() => done(true), 500))")
    assert page.evaluate("frames") == before
    assert page.problems == []
    assert running.service.answered >= 5


def test_page_asks_for_the_token_and_says_what_is_wrong(
    serving: Callable[..., Running], page: browser.Page, tmp_path: Path
) -> None:
    running = serving(token=TOKEN)
    picture, text = tmp_path / "picture.png", tmp_path / "text.png"
    picture.write_bytes(PICTURE)
    open_page(page, running)
    page.choose("#file", picture)
    page.wait_for("document.getElementById('message').textContent.includes('a token is needed')")
    assert page.evaluate("document.getElementById('login').hidden") is False
    page.evaluate(f"document.getElementById('token').value = '{TOKEN}'")
    page.evaluate("document.querySelector('#login button').click()")
    page.choose("#file", picture)
    page.wait_for("document.getElementById('frames').textContent === '1'")
    text.write_text("no picture")
    page.choose("#file", text)
    page.wait_for("document.getElementById('message').textContent !== ''")


def test_busy_service_is_asked_again(serving: Callable[..., Running], page: browser.Page, tmp_path: Path) -> None:
    running = serving(queue=1)
    running.service.accepted += 1  # as if somebody's picture were under way
    picture = tmp_path / "picture.png"
    picture.write_bytes(PICTURE)
    open_page(page, running)
    page.evaluate("document.getElementById('camera').click()")
    page.wait_for("document.getElementById('message').textContent.includes('busy; asking again in 1 s')")
    running.service.answered += 1
    page.wait_for("Number(document.getElementById('frames').textContent) >= 1")


def test_files_of_the_page_ask_nobody_else() -> None:
    from importlib import resources

    from edgekd._serving.app import PAGE

    for name, _ in PAGE.values():
        text = resources.files("edgekd._serving").joinpath(name).read_text(encoding="utf-8")
        assert "//" not in text.replace("// ", ""), f"{name} has an address"
