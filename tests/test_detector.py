"""`Detector` over a scripted session: what is asked of the engine and what comes back, without any runtime."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import io
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgekd import Bundle, Detections, load, ops
from edgekd._detector import BATCH, Detector, DetectorInfo
from edgekd._manifest import ANGLE, InputSpec, Manifest, OutputSpec
from edgekd._session import SessionInfo
from edgekd.errors import ClosedError, DeadlineError, ImageError, UsageError

from .conformance import bundles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

INFO = DetectorInfo(SessionInfo("scripted", "fp32", "fp32", "cpu", "none"), "only one")


class ScriptedSession:
    """Returns three fixed boxes for every image and keeps what it was given."""

    info = INFO.session
    parallel = 1

    def __init__(self) -> None:
        self.calls: list[NDArray[np.float32]] = []
        self.closed = 0

    def infer(self, pixels: NDArray[np.float32], _out: object = None) -> tuple[NDArray[np.float32], ...]:
        self.calls.append(pixels.copy())
        batch = len(pixels)
        boxes = np.array([[8, 16, 24, 48], [8, 16, 25, 48], [40, 20, 60, 40]], np.float32)
        scores = np.array([[0.9, 0.1], [0.8, 0.1], [0.2, 0.6]], np.float32)
        return np.repeat(boxes[None], batch, 0), np.repeat(scores[None], batch, 0)

    def close(self) -> None:
        self.closed += 1


def _detector(color: str = "rgb") -> tuple[Detector, ScriptedSession]:
    manifest = Manifest(
        name="scripted",
        task="detect",
        classes=("a", "b"),
        input=InputSpec(height=64, width=64, color=color, mean=(0, 0, 0), std=(1, 1, 1), pad=114),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(3, 4), layout="xyxy"),
            OutputSpec(name="scores", kind="scores", shape=(3, 2), activation="sigmoid"),
        ),
    )
    session = ScriptedSession()
    return Detector(manifest, session, INFO), session


def _picture(height: int = 128, width: int = 128) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 200
    return image


def test_one_image_gives_one_detections_and_a_list_gives_a_list() -> None:
    detector, _ = _detector()
    assert isinstance(detector.predict(_picture()), Detections)
    found = detector.predict([_picture(), _picture()])
    assert isinstance(found, list)
    assert len(found) == 2
    assert detector.predict([]) == []


def test_boxes_come_back_in_pixels_of_the_original_best_first() -> None:
    detector, _ = _detector()
    found = detector.predict(_picture())
    assert found.boxes.tolist() == [[16, 32, 48, 96], [80, 40, 120, 80]]  # the 0.8 box overlaps the 0.9 one
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.names == ["a", "b"]
    assert found.image_size == (128, 128)
    assert found.boxes.dtype == np.float32


def test_letterboxed_images_are_undone_with_their_padding() -> None:
    detector, _ = _detector()
    found = detector.predict(_picture(64, 128))  # scaled by one half to 64x32, 16 px of padding above
    assert found.boxes[0].tolist() == [16, 0, 48, 64]


def test_images_of_one_size_and_of_many_reach_the_network_as_if_each_were_the_first() -> None:
    rng = np.random.default_rng(0)
    sizes = [(64, 128), (64, 128), (128, 64), (64, 128), (64, 64), (10, 60), (10, 60), (32, 64), (64, 128)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for batches in ([[image] for image in images], [images, images[::-1]], [images[:2], images, images[4:]]):
        detector, session = _detector()
        for batch in batches:
            with contextlib.suppress(ImageError):
                detector.predict([batch[0], "no such file"])  # the second row is not filled
            detector.predict(batch)
            pixels = np.concatenate(session.calls)[-len(batch) :]
            alone = [ops.letterbox(image, 64, 64, swap=True, mean=(0, 0, 0), std=(1, 1, 1))[0] for image in batch]
            np.testing.assert_array_equal(pixels, alone)


def test_an_interrupt_after_the_letterbox_leaves_no_border_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, session = _detector()
    tall, wide = _picture(128, 64), _picture(64, 128)
    detector.predict(tall)

    def interrupted(*args: object, **options: object) -> None:
        letterbox(*args, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    letterbox = ops.letterbox
    monkeypatch.setattr(ops, "letterbox", interrupted)
    with pytest.raises(KeyboardInterrupt):
        detector.predict(wide)
    monkeypatch.undo()
    detector.predict(tall)
    np.testing.assert_array_equal(session.calls[1], session.calls[0])


def test_array_colour_order_reaches_the_network_as_the_manifest_says() -> None:
    for network, given, first_plane in (("rgb", "bgr", 0), ("rgb", "rgb", 200), ("bgr", "bgr", 200), ("bgr", "rgb", 0)):
        detector, session = _detector(network)
        detector.predict(_picture(64, 64), color=given)
        assert session.calls[0][0, 0, 5, 5] == first_plane, (network, given)


def test_png_bytes_path_pil_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    file = tmp_path / "x.png"
    Image.fromarray(rgb).save(file)
    detector, session = _detector()
    for image in (file, str(file), file.read_bytes(), Image.open(io.BytesIO(file.read_bytes())), rgb[:, :, ::-1]):
        detector.predict(image)
    assert all(np.array_equal(call, session.calls[0]) for call in session.calls)


def test_options_filter_as_they_say() -> None:
    detector, _ = _detector()
    assert detector.predict(_picture(), conf=0.7).scores.tolist() == pytest.approx([0.9])
    assert len(detector.predict(_picture(), iou=1.0)) == 3
    assert len(detector.predict(_picture(), max_det=1)) == 1
    assert detector.predict(_picture(), classes=["b"], conf=0.0).names == ["b"] * len(
        detector.predict(_picture(), classes=[1], conf=0.0)
    )
    assert len(detector.predict(_picture(), conf=1.0)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"conf": 1.5}, "conf should be between 0 and 1, got 1.5"),
        ({"iou": -0.1}, "iou should be between 0 and 1"),
        ({"conf": float("nan")}, "conf should be between 0 and 1, got nan"),
        ({"max_det": 0}, "max_det should be a whole number from 1 to 2147483647, got 0"),
        ({"max_det": 10.5}, r"whole number from 1 to 2147483647, got 10\.5"),
        ({"max_det": True}, "got True"),
        ({"max_det": 2**31}, "got 2147483648"),
        ({"max_det": 10**20}, "got 100000000000000000000"),
        ({"classes": ["c"]}, "no class 'c'; possible: a, b"),
        ({"classes": [2]}, "no class index 2; possible: 0 to 1"),
        ({"classes": np.array([True, False])}, "no class index True; possible: 0 to 1"),
        ({"classes": [0.5]}, "no class index 0.5; possible: 0 to 1"),
    ],
)
def test_wrong_options_name_what_was_got_and_what_is_possible(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _detector()[0].predict(_picture(), **options)


def test_float_images_are_refused_never_guessed() -> None:
    with pytest.raises(ImageError, match="float"):
        _detector()[0].predict(np.zeros((8, 8, 3), np.float32))


def test_long_lists_go_in_batches_in_order() -> None:
    detector, session = _detector()
    images = [np.full((8, 8, 3), value, np.uint8) for value in range(2 * BATCH + 1)]
    assert len(detector.predict(images)) == len(images)
    assert [len(call) for call in session.calls] == [BATCH, BATCH, 1]
    assert np.concatenate(session.calls)[:, 0, 32, 32].tolist() == list(range(2 * BATCH + 1))


def test_timings_name_each_stage_and_add_up() -> None:
    timings = _detector()[0].predict(_picture()).timings_ms
    assert list(timings) == ["decode", "letterbox", "infer", "suppress", "total"]
    assert timings["total"] == pytest.approx(sum(value for name, value in timings.items() if name != "total"))
    assert all(value >= 0 for value in timings.values())


def test_predict_from_many_threads_keeps_images_apart() -> None:
    detector, session = _detector()
    values = list(range(40))

    def work(value: int) -> None:
        detector.predict(np.full((8, 8, 3), value, np.uint8))

    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(float(call.max()) for call in session.calls) == values
    assert all(float(call.min()) == float(call.max()) for call in session.calls)  # no two images in one buffer


TURNED = np.float32([
    [40, 30, 20, 8, 0.3],
    [40, 30, 8, 20, 0.3 - np.pi / 2],  # the same rectangle
    [40, 30, 20, 8, 0.3 - np.pi / 2],  # a cross with it: IoU 64 / 256, but nearly the same hull
    [20, 50, 12, 6, -1.5],
])  # fmt: skip


def _oriented_detector() -> tuple[Detector, ScriptedSession]:
    plain, session = _detector()
    outputs = (
        OutputSpec(name="boxes", kind="boxes", shape=(4, 5), layout="xywhr"),
        OutputSpec(name="scores", kind="scores", shape=(4, 2), activation="sigmoid"),
    )
    scores = np.float32([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.1, 0.6]])

    def infer(pixels: NDArray[np.float32], _out: object = None) -> tuple[NDArray[np.float32], ...]:
        session.calls.append(pixels.copy())
        return np.repeat(TURNED[None], len(pixels), 0), np.repeat(scores[None], len(pixels), 0)

    session.infer = infer  # type: ignore[method-assign]
    manifest = dataclasses.replace(plain.manifest, outputs=outputs, angle=ANGLE)
    return Detector(manifest, session, INFO), session


def test_oriented_boxes_are_suppressed_by_their_rectangles_and_come_back_in_pixels_of_the_image() -> None:
    found = _oriented_detector()[0].predict(_picture())  # 128 pixels for the network's 64
    assert found.oriented
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    np.testing.assert_allclose(found.boxes, TURNED[[0, 2, 3]] * [2, 2, 2, 2, 1], rtol=1e-5)
    np.testing.assert_allclose(found.corners[0].mean(axis=0), [80, 60], rtol=1e-5)
    assert found.names == ["a", "a", "b"]


def test_oriented_boxes_of_a_letterboxed_image_lose_the_padding_and_are_not_clipped() -> None:
    found = _oriented_detector()[0].predict(_picture(64, 128))  # scaled by one half, 16 px of padding above
    np.testing.assert_allclose(found.boxes[2], [40, 68, 24, 12, -1.5], rtol=1e-5)  # reaches below the image
    assert found.corners[2, :, 1].max() > 64


def test_options_filter_oriented_boxes_as_they_say() -> None:
    detector, session = _oriented_detector()
    assert len(detector.predict(_picture(), iou=0.2)) == 2
    assert len(detector.predict(_picture(), iou=1.0)) == 4
    assert len(detector.predict(_picture(), max_det=1)) == 1
    assert len(detector.predict(_picture(), conf=0.65)) == 2
    only = detector.predict(_picture(), classes=["b"], conf=0.5)
    np.testing.assert_allclose(only.boxes, [[40, 100, 24, 12, -1.5]], rtol=1e-5)
    several = detector.predict([_picture()] * (BATCH + 1))
    assert [len(item) for item in several] == [3] * (BATCH + 1)
    assert len(session.calls[-1]) == 1


def test_close_is_final_and_idempotent() -> None:
    detector, session = _detector()
    with detector:
        detector.warmup()
    detector.close()
    assert session.closed == 1
    with pytest.raises(ClosedError, match="load the bundle again"):
        detector.predict(_picture())


def test_results_of_one_call_survive_the_next() -> None:
    """The engine writes into arrays that the detector keeps; what was returned must not change with them."""
    detector, session = _detector()
    held: list[NDArray[np.float32]] = []

    def infer(pixels: NDArray[np.float32], out: tuple[NDArray[np.float32], ...]) -> tuple[NDArray[np.float32], ...]:
        boxes, scores = ScriptedSession().infer(pixels)
        out[0][...], out[1][...] = boxes + len(held), scores
        held.append(out[0])
        return out

    session.infer = infer  # type: ignore[assignment, method-assign]
    first = detector.predict(_picture(64, 64))
    before = first.boxes.copy(), first.scores.copy()
    detector.predict(_picture(64, 64))
    assert np.shares_memory(held[0], held[1])
    assert np.array_equal(first.boxes, before[0])
    assert np.array_equal(first.scores, before[1])


def test_mode_that_is_none_is_refused(tmp_path: Path) -> None:
    path = bundles.written("reference", "fp32", tmp_path)
    with pytest.raises(UsageError, match="mode should be one of latency, throughput; got 'fast'"):
        load(path, mode="fast")


@pytest.mark.parametrize("threads", [-1, 1025, 1.5, True, "2"])
def test_threads_that_no_engine_has_are_refused(tmp_path: Path, threads: object) -> None:
    path = bundles.written("reference", "fp32", tmp_path)
    with pytest.raises(UsageError, match=f"threads should be a whole number from 0 to 1024, got {threads!r}; 0 leaves"):
        load(path, threads=threads)  # type: ignore[arg-type]
    with load(path, threads=np.int64(1)) as detector:  # type: ignore[arg-type]
        assert detector.submit(_picture()).result(10)


def test_cache_that_cannot_be_is_no_cache_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    path = bundles.written("reference", "fp32", tmp_path)
    with load(path, cache="/proc/nowhere/at-all") as detector:  # nothing can be made there, as on a read-only system
        assert detector.predict(_picture())
    with pytest.raises(UsageError, match="is a file; it should be a folder"):
        load(path, cache=path)
    with load(path, cache=tmp_path):
        """An unsigned bundle may have its cache beside it."""
    Bundle.read(path).sign(bytes(range(32))).write(path)
    with pytest.raises(UsageError, match="holds the signed bundle, whose signature does not cover"):
        load(path, cache=tmp_path / ".." / tmp_path.name)
    with load(path, cache=tmp_path / "cache"):
        assert (tmp_path / "cache").is_dir()


def test_after_warmup_the_first_call_loads_nothing_more(tmp_path: Path) -> None:
    path = bundles.written("reference", "fp32", tmp_path)
    code = (
        "import sys, edgekd, numpy as np\n"
        "detector = edgekd.load(sys.argv[1]); detector.warmup()\n"
        "before, buffers = set(sys.modules), [id(a) for a in detector._pipeline._local.outputs]\n"
        "detector.predict(sys.argv[2]); detector.predict(np.zeros((90, 120, 3), np.uint8))\n"
        "print(sorted(set(sys.modules) - before), buffers == [id(a) for a in detector._pipeline._local.outputs])"
    )
    picture = tmp_path / "picture.png"
    Image.fromarray(bundles.pictures(1)[0]).save(picture)
    words = [sys.executable, "-c", code, str(path), str(picture)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[] True\n"


def test_warmup_of_a_bundle_without_golden_images_is_on_grey() -> None:
    detector, session = _detector()
    detector.warmup(2)
    assert [float(call.max()) for call in session.calls] == [114.0] * 2


class Held(ScriptedSession):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = threading.Event()
        self.waiting = 0

    def infer(self, pixels: NDArray[np.float32], _out: object = None) -> tuple[NDArray[np.float32], ...]:
        self.waiting += 1
        assert self.may_go.wait(10)
        return super().infer(pixels)


def _held() -> tuple[Detector, Held]:
    plain, _ = _detector()
    session = Held()
    return Detector(plain.manifest, session, INFO), session


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    assert true()


def test_submit_gives_what_predict_gives_and_raises_what_it_raises() -> None:
    detector, _ = _detector()
    assert len(detector.submit(_picture()).result(10)) == len(detector.predict(_picture()))
    assert [len(found) for found in detector.submit([_picture()] * 3, conf=0.7).result(10)] == [1] * 3
    assert isinstance(detector.submit(_picture(), conf=2.0).exception(10), UsageError)
    with pytest.raises(UsageError, match="timeout_ms should be"):
        detector.submit(_picture(), timeout_ms=0)
    detector.close()


def test_submit_runs_one_more_than_the_engine_is_worth_and_twice_as_many_may_wait() -> None:
    detector, session = _held()
    futures = [detector.submit(_picture()) for _ in range(6)]
    _until(lambda: session.waiting == 2)
    assert detector.waiting == 4
    placed = threading.Event()
    caller = threading.Thread(target=lambda: (futures.append(detector.submit(_picture())), placed.set()))
    caller.start()
    assert not placed.wait(0.1), "the next one waits for a place"
    assert isinstance(detector.submit(_picture(), timeout_ms=30).exception(10), DeadlineError)
    session.may_go.set()
    assert placed.wait(10)
    assert [len(future.result(10)) for future in futures] == [2] * 7
    detector.close()


def test_apredict_never_blocks_its_loop_and_a_cancelled_task_takes_its_call_away() -> None:
    detector, session = _held()

    async def work() -> list[object]:
        tasks = [asyncio.ensure_future(detector.apredict(_picture())) for _ in range(20)]
        late = asyncio.ensure_future(detector.apredict(_picture(), timeout_ms=30))
        while session.waiting < 2 or detector.waiting < 18:
            await asyncio.sleep(0.005)
        for task in tasks[10:]:
            task.cancel()
        while detector.waiting != 8:
            await asyncio.sleep(0.005)
        session.may_go.set()
        return await asyncio.gather(*tasks, late, return_exceptions=True)

    *found, late = asyncio.run(asyncio.wait_for(work(), 20))
    assert [type(item) for item in found] == [Detections] * 10 + [asyncio.CancelledError] * 10
    assert isinstance(late, DeadlineError)
    detector.close()


def test_close_waits_for_what_runs_and_ends_what_waits() -> None:
    detector, session = _held()
    futures = [detector.submit(_picture()) for _ in range(4)]
    _until(lambda: session.waiting == 2)
    closing = threading.Thread(target=detector.close)
    closing.start()
    ended = [future.exception(10) for future in futures[2:]]
    assert [type(error) for error in ended] == [ClosedError] * 2
    assert closing.is_alive()
    assert not session.closed, "the engine is at work"
    session.may_go.set()
    closing.join(10)
    assert session.closed == 1
    assert [len(future.result(0)) for future in futures[:2]] == [2, 2]
    with pytest.raises(ClosedError, match="load the bundle again"):
        detector.submit(_picture())


def test_close_waits_for_predict_in_another_thread() -> None:
    detector, session = _held()
    caller = threading.Thread(target=detector.predict, args=(_picture(),))
    caller.start()
    _until(lambda: session.waiting == 1)
    closing = threading.Thread(target=detector.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    assert not session.closed, "the engine is at work"
    session.may_go.set()
    closing.join(10)
    caller.join(10)
    assert session.closed == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_waits_for_calls_that_run_and_holds_up_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime's own lock, held by a call amid a fork, would be held in the child for ever."""
    detector, session = _held()
    events: list[str] = []

    def forking() -> None:
        child = os.fork()
        if child == 0:
            os._exit(session.waiting - len(session.calls))  # calls amid the engine
        events.append(f"child {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")

    first = threading.Thread(target=lambda: (detector.predict(_picture()), events.append("first")))
    first.start()
    _until(lambda: session.waiting == 1)
    fork = threading.Thread(target=forking)
    fork.start()
    _until(lambda: detector._engine._forking)
    second = threading.Thread(target=lambda: (detector.predict(_picture()), events.append("second")))
    second.start()
    second.join(0.1)
    assert session.waiting == 1, "the second waits for the fork"
    assert not events
    session.may_go.set()
    for thread in (first, fork, second):
        thread.join(10)
    assert sorted(events) == ["child 0", "first", "second"]
    monkeypatch.setattr("edgekd._engine.QUIET_S", 0.05)
    with detector._engine.use():  # who forks amid a call of his own waits a little, and forks
        forking()
    assert len(detector.predict(_picture())) == 2
    detector.close()


def test_detector_that_is_dropped_ends_its_threads() -> None:
    detector, _ = _detector()
    detector.submit(_picture(), timeout_ms=60_000).result(10)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("edgekd-")]
    del detector

    def gone() -> bool:
        gc.collect()
        return not [thread for thread in threading.enumerate() if thread.name.startswith("edgekd-")]

    _until(gone)
