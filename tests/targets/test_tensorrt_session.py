"""The session on the host device: the bits of the host pipeline, graphs, memory, threads, and what goes wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from edgekd.targets.tensorrt import _session
from edgekd.targets.tensorrt._session import TensorRTSession, device_index
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import edgekd
from edgekd import ops
from edgekd._bundle import Bundle
from edgekd._manifest import Artifact, OutputSpec
from edgekd._session import PipelineSession, Request
from edgekd.errors import ClosedError, SessionError, UsageError

from ..conformance import bundles
from . import tensorrt_fake
from .tensorrt_fake import FakeTensorRT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgekd._session import Found, Frame

    from .conftest import Board

REQUEST = Request(conf=0.2, iou=0.5, max_det=100, max_candidates=3000, classes=None)


def start(*, oriented: bool = False) -> contextlib.closing[TensorRTSession]:
    bundle, artifact = bundles.built("tensorrt", "fp32", oriented=oriented)[:2]
    return contextlib.closing(TensorRTSession(bundle, artifact, device="auto"))


def frame(height: int = 40, width: int = 70, channels: int = 3, seed: int = 0, *, swap: bool = True) -> Frame:
    noise = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), channels))
    return noise.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8), swap


def on_the_host(session: TensorRTSession, frames: Sequence[Frame], request: Request, *, oriented: bool) -> list[Found]:
    """Return what the host's kernels around `infer` give."""
    spec = bundles.manifest(oriented=oriented).input
    found = []
    for pixels, swap in frames:
        placed, placement = ops.letterbox(
            pixels, spec.height, spec.width, swap=swap, mean=spec.mean, std=spec.std, pad=spec.pad
        )
        boxes, scores = session.infer(placed[None])
        options = dataclasses.asdict(request)
        found.append((*ops.suppress(boxes[0], scores[0], **options), placement))
    return found


def assert_same_bits(got: Sequence[Any], expected: Sequence[Any]) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        for one, other in zip(mine[:3], theirs[:3], strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))
        assert mine[3] == theirs[3]


@pytest.mark.parametrize("integrated", [True, False])
@pytest.mark.parametrize("oriented", [False, True])
def test_detect_gives_the_bits_of_the_host_pipeline(board: Board, integrated: bool, oriented: bool) -> None:
    board.integrated = integrated
    frames = [frame(), frame(1, 1), frame(90, 33, 1, swap=False), frame(17, 300, 4), frame(64, 96, seed=3)]
    frames.append((frame(50, 50)[0][::-1, ::2], False))  # neither contiguous nor the right way up
    with start(oriented=oriented) as session:
        assert isinstance(session, PipelineSession)
        for request in (REQUEST, dataclasses.replace(REQUEST, conf=0.0, iou=0.0, max_det=3, max_candidates=7)):
            expected = on_the_host(session, frames, request, oriented=oriented)
            assert max(len(item[0]) for item in expected) > 2
            for _ in range(3):  # queued, captured, replayed
                for item, wanted in zip(frames, expected, strict=True):
                    assert_same_bits(session.detect([item], request), [wanted])


def test_detect_when_more_may_be_found_than_there_can_be_then_no_room_is_made_for_it(board: Board) -> None:
    with start() as session:
        session.detect([frame()], REQUEST)
        device = board.devices[-1]
        device.room = sum(item.size for item in device.live) + (1 << 20)
        request = dataclasses.replace(REQUEST, max_det=2**31 - 1)
        assert_same_bits(session.detect([frame()], request), on_the_host(session, [frame()], request, oriented=False))


@pytest.mark.parametrize("classes", [(), (0,), (1, 2)])
def test_detect_of_some_classes_finds_no_others(board: Board, classes: tuple[int, ...]) -> None:
    request = dataclasses.replace(REQUEST, classes=classes)
    with start() as session:
        expected = on_the_host(session, [frame()], request, oriented=False)
        for _ in range(3):
            assert_same_bits(session.detect([frame()], request), expected)
            session.detect([frame()], REQUEST)


@pytest.mark.parametrize("count", [2, 3, 8, 11])
def test_detect_of_many_frames_equals_one_by_one(board: Board, count: int) -> None:
    frames = [frame(20 + 7 * seed, 60, seed=seed) for seed in range(count)]
    with start() as session:
        expected = [session.detect([item], REQUEST)[0] for item in frames]
        for _ in range(3):
            got = session.detect(frames, REQUEST)
            for one, other in zip(got, expected, strict=True):  # ONNX Runtime sums a batch in another order
                np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
                np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_large_frames_go_one_by_one(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session, "STAGED_BYTES", 3 * 50 * 50)
    sizes = [len(group) for group in _session._groups([frame(50, 50)] * 2 + [frame(25, 25)] * 5, 4)]
    assert sizes == [1, 1, 4, 1]
    with start() as session:
        assert len(session.detect([frame(50, 50)] * 3, REQUEST)) == 3
        assert board.tensorrt.contexts == 1
    assert list(_session._groups([], 4)) == []


def test_third_frame_of_a_size_replays_a_graph_and_allocates_nothing(board: Board) -> None:
    with start() as session:
        device = board.devices[-1]
        session.detect([frame()], REQUEST)
        assert (device.graphs, device.replays) == (0, 0), "TensorRT has to run once before it is captured"
        session.detect([frame(seed=1)], REQUEST)
        assert (device.graphs, device.replays) == (1, 1)
        made, copies = device.made, device.copies
        for seed in range(20):
            expected = on_the_host(session, [frame(seed=seed)], REQUEST, oriented=False) if seed % 7 == 0 else None
            found = session.detect([frame(seed=seed)], REQUEST)
            if expected:
                assert_same_bits(found, expected)
        assert device.made == made, "steady state allocates nothing"
        assert (device.graphs, device.replays) == (1, 21)
        assert device.copies - copies == 3 * 3, "of `infer` only: a GPU that shares the host's memory needs no copy"


def test_discrete_gpu_copies_once_each_way(board: Board) -> None:
    board.integrated = False
    with start() as session:
        device = board.devices[-1]
        before = device.copies
        session.detect([frame()], REQUEST)
        assert device.copies - before == 2


def test_other_sizes_and_thresholds_have_graphs_of_their_own_and_the_oldest_go(board: Board) -> None:
    with start() as session:
        device = board.devices[-1]
        for width in range(31, 19, -1):  # the largest first: frames that need more memory would forget all graphs
            for _ in range(2):
                session.detect([frame(90, width)], REQUEST)
        session.detect([frame(90, 31)], dataclasses.replace(REQUEST, conf=0.3))
        assert device.graphs == 8


def test_larger_frames_and_limits_make_room_and_forget_graphs(board: Board) -> None:
    with start() as session:
        device = board.devices[-1]
        for size, max_det in ((30, 5), (60, 5), (60, 50)):
            request = dataclasses.replace(REQUEST, max_det=max_det)
            expected = on_the_host(session, [frame(size, size)], request, oriented=False)
            for _ in range(3):
                assert_same_bits(session.detect([frame(size, size)], request), expected)
            assert device.graphs == 1


@pytest.mark.parametrize("integrated", [True, False])
def test_close_frees_everything(board: Board, integrated: bool) -> None:
    board.integrated = integrated
    with start() as session:
        device = board.devices[-1]
        for count in (1, 1, 2, 5):
            session.detect([frame()] * count, REQUEST)
        assert device.live
        assert device.graphs
    assert (device.live, device.graphs, device.streams, device.closed) == ([], 0, 0, True)
    with pytest.raises(ClosedError):
        session.detect([frame()], REQUEST)


def test_threads_share_two_lanes_and_get_their_own_results(board: Board) -> None:
    frames = [frame(30 + seed, 60, seed=seed) for seed in range(4)]
    with start() as session:
        expected = [session.detect([item], REQUEST) for item in frames]
        barrier = threading.Barrier(4)

        def work(index: int) -> None:
            barrier.wait()
            for _ in range(15):
                assert_same_bits(session.detect([frames[index]], REQUEST), expected[index])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert board.tensorrt.contexts <= 2


def test_close_waits_for_the_call_that_is_under_way(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    with start() as session:
        device = board.devices[-1]
        expected = session.detect([frame()], REQUEST)
        running, go = threading.Event(), threading.Event()

        def run(*job: Any) -> None:
            running.set()
            assert go.wait(20)
            type(device).run(device, *job)

        monkeypatch.setattr(device, "run", run)
        with ThreadPoolExecutor(2) as pool:
            call = pool.submit(session.detect, [frame()], REQUEST)
            assert running.wait(20)
            closing = pool.submit(session.close)
            with pytest.raises(NotDone):
                closing.result(0.2)
            assert device.live
            go.set()
            assert_same_bits(call.result(20), expected)
            closing.result(20)
        assert device.live == []


def test_close_when_layers_are_timed_then_it_waits(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    running, go, real = threading.Event(), threading.Event(), _session.Lane.layer_times

    def slow(self: Any, *args: Any) -> Any:
        running.set()
        assert go.wait(20)
        return real(self, *args)

    monkeypatch.setattr(_session.Lane, "layer_times", slow)
    with start() as session, ThreadPoolExecutor(2) as pool:
        call = pool.submit(session.layer_times, bundles.pixels(1), 1)
        assert running.wait(20)
        closing = pool.submit(session.close)
        try:
            with pytest.raises(NotDone):
                closing.result(0.2)
        finally:
            go.set()
        assert call.result(20)
        closing.result(20)
    assert board.devices[-1].live == []


def test_failed_run_gives_the_vendors_words_and_the_next_call_works(board: Board) -> None:
    with start() as session:
        device = board.devices[-1]
        expected = session.detect([frame()], REQUEST)
        board.tensorrt.run_errors = [tensorrt_fake.NO_MEMORY]
        with pytest.raises(SessionError, match=r"memory is full.*(.|\n)*Cuda Runtime \(out of memory\)"):
            session.detect([frame(9, 9)], REQUEST)
        assert (device.live, device.streams) == ([], 0), "the lane that failed is gone"
        assert_same_bits(session.detect([frame()], REQUEST), expected)


def test_engine_that_cannot_be_captured_runs_without_a_graph(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    with start() as session:
        expected = session.detect([frame()], REQUEST)
        board.tensorrt.run_errors = ["operation not permitted when stream is capturing"]
        for _ in range(3):
            assert_same_bits(session.detect([frame()], REQUEST), expected)
        device = board.devices[-1]
        assert (device.graphs, device.replays, device.capturing) == (0, 0, set())
    assert caplog.text.count("no CUDA graph, so every frame is queued kernel by kernel") == 1


def test_capture_whose_failure_costs_a_frame_is_not_tried_again_by_other_lanes(
    board: Board, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = _session.Lane._queue, []

    def stale(self: Any, *args: Any) -> None:
        """Tell the capture's error once more, as a library does that asks for the last one."""
        if not self.captures and not failed:
            failed.append(self)
            raise SessionError("the error before, again")
        real(self, *args)

    monkeypatch.setattr(_session.Lane, "_queue", stale)
    with start() as session:
        expected = session.detect([frame()], REQUEST)
        board.tensorrt.run_errors = ["operation not permitted when stream is capturing"]
        with pytest.raises(SessionError, match="the error before, again"):
            session.detect([frame()], REQUEST)
        for _ in range(4):
            assert_same_bits(session.detect([frame()], REQUEST), expected)
        assert_same_bits(session.detect([frame()] * 2, REQUEST), expected * 2)
        assert_same_bits(session.detect([frame()] * 2, REQUEST), expected * 2)
        assert (board.devices[-1].graphs, board.devices[-1].capturing) == (0, set())
    assert caplog.text.count("no CUDA graph, so every frame is queued kernel by kernel") == 1


@pytest.mark.parametrize("call", ["upload", "launch", "download", "captured"])
def test_driver_that_refuses_a_capture_at_any_call_costs_the_graph_and_no_frame(
    board: Board, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    board.integrated = False
    with start() as session:
        expected = session.detect([frame()], REQUEST)
        device = board.devices[-1]
        device.refused = {call}
        for _ in range(4):
            assert_same_bits(session.detect([frame()], REQUEST), expected)
        assert (device.graphs, device.replays, device.capturing, device.streams) == (0, 0, set(), 1)
    assert caplog.text.count("no CUDA graph, so every frame is queued kernel by kernel") == 1


@pytest.mark.parametrize("blocks", range(9))
def test_memory_that_runs_out_at_any_allocation_leaks_nothing(board: Board, blocks: int) -> None:
    board.integrated = False
    with start() as session:
        session.detect([frame()], REQUEST)
        sizes = [item.size for item in board.devices[-1].live]
    assert len(sizes) == 9
    with start() as session:
        device = board.devices[-1]
        device.room = sum(sizes[: blocks + 1]) - 1
        with pytest.raises(SessionError, match="out of memory"):
            session.detect([frame()], REQUEST)
        assert device.live == []
        device.room = 1 << 40
        assert len(session.detect([frame()], REQUEST)) == 1
    assert device.live == []


def test_more_candidates_than_the_gpu_takes_are_refused(board: Board) -> None:
    said = r"5000 candidates.*4096 can\. Load with device='cpu'.*max_candidates of 4096 or less"
    with start() as session, pytest.raises(UsageError, match=said):
        session.detect([frame()], dataclasses.replace(REQUEST, max_candidates=5000))


@pytest.mark.parametrize("version", ["8.5.2", "8.6.2", "10.3.0", "10.16.2", "11.4.1"])
def test_every_version_gives_the_same_and_is_asked_in_its_own_way(board: Board, version: str) -> None:
    board.tensorrt = FakeTensorRT(version)
    with start() as session:
        expected = on_the_host(session, [frame(), frame(33, 44)], REQUEST, oriented=False)
        assert_same_bits([session.detect([item], REQUEST)[0] for item in (frame(), frame(33, 44))], expected)
        assert len(session.detect([frame()] * 5, REQUEST)) == 5
        calls = dict(item for item in board.tensorrt.calls if item[0] in ("flags", "profile"))
        old = version.startswith("8")
        assert calls["flags"] == (1 if old else 2), "explicit batch, or strongly typed"
        assert [shape[0] for shape in calls["profile"][1:]] == ([1, 1, 1] if old else [1, 1, 8])
        assert (board.tensorrt.contexts == 1) is old, "before 10 two contexts cannot share a profile"


def test_tensorrt_for_rtx_is_told_what_a_capture_needs_and_the_others_are_not(board: Board) -> None:
    board.tensorrt = FakeTensorRT("1.2.0", rtx=True)
    with start() as session:
        for _ in range(3):
            session.detect([frame()], REQUEST)
        assert board.devices[-1].replays == 2
        assert ("set", "REQUIRE_USER_ALLOCATION") in board.tensorrt.calls
        assert board.tensorrt.strategies == ["EAGER"]
    board.tensorrt = FakeTensorRT("10.3.0")
    with start() as session:
        session.detect([frame()], REQUEST)
    assert [item for item in board.tensorrt.calls if item[0] == "set"] == []


def _constant(boxes: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> bytes:
    """Return a graph that gives these outputs whatever the image."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Shape", ["mean"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
    ]
    for name in ("boxes", "scores"):
        nodes.append(helper.make_node("Concat", ["batch", f"{name}_shape"], [f"{name}_to"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_value", f"{name}_to"], [name]))
    held = {
        "zero": np.array([0]), "one": np.array([1]), "boxes_value": boxes[None], "scores_value": scores[None],
        "boxes_shape": np.array(boxes.shape), "scores_shape": np.array(scores.shape),
    }  # fmt: skip
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, bundles.HEIGHT, bundles.WIDTH])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", *values.shape])
        for name, values in (("boxes", boxes), ("scores", scores))
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "constant", [image], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 5]), st.integers(1, 300), st.integers(1, 9))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_detect_of_adversarial_outputs_keeps_what_the_host_keeps(
    board: Board, seed: int, columns: int, rows: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.choice(np.array([0, 0, 1, 8, 9, 30, -5, np.nan, np.inf, 1e30, 1e-40], np.float32), (rows, columns))
    scores = rng.choice(np.array([0, 0.2, 0.5, 0.5, 0.9, 1, np.nan, np.inf, -0.0], np.float32), (rows, classes))
    outputs = (
        OutputSpec(name="boxes", kind="boxes", shape=boxes.shape, layout="xyxy" if columns == 4 else "xywhr"),
        OutputSpec(name="scores", kind="scores", shape=scores.shape, activation="sigmoid"),
    )
    manifest = dataclasses.replace(
        bundles.manifest(oriented=columns == 5), outputs=outputs, classes=tuple(f"c{i}" for i in range(classes))
    )
    graph = _constant(boxes, scores)
    onnx.checker.check_model(onnx.load_from_string(graph))
    artifact = Artifact(target="tensorrt", precision="fp32", files={"model.onnx": "graph.onnx"})
    bundle = Bundle.create(manifest, {"graph.onnx": graph})
    request = Request(conf=0.2, iou=float(rng.choice([0.0, 0.5, 1.0])), max_det=50, max_candidates=99, classes=None)
    expected = ops.suppress(boxes, scores, **dataclasses.asdict(request))
    with contextlib.closing(TensorRTSession(bundle, artifact, device="auto")) as session:
        for _ in range(3):
            (found,) = session.detect([frame()], request)
            for one, other in zip(found[:3], expected, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("spelling", "index"),
    [("auto", 0), ("cuda", 0), ("CUDA:1", 1), ("gpu:2", 2), ("tensorrt", 0), ("trt", 0), ("nvidia", 0)],
)
def test_device_index_of_everybodys_spelling(spelling: str, index: int) -> None:
    assert device_index(spelling) == index


@pytest.mark.parametrize("spelling", ["cuda:", "cuda:x", "cuda:-1", "trt:0", "cuda:²", "dla:", "dla:-1", "dlax", "cpu"])
def test_device_index_of_what_is_none_says_what_is_possible(spelling: str) -> None:
    with pytest.raises(UsageError, match=r"no device.*possible: auto, cuda"):
        device_index(spelling)


def test_selftest_of_both_precisions_passes_with_the_pipeline_on_the_device(board: Board, tmp_path: Path) -> None:
    built = [bundles.built("tensorrt", precision) for precision in ("fp32", "fp16")]
    artifacts = tuple(item.artifact for item in built)
    chunks = {name: bytes(item.bundle.chunk(name)) for item in built for name in item.artifact.files.values()}
    path = tmp_path / "model.bin"
    bundle = bundles.portable()
    bundle.replace(dataclasses.replace(bundle.manifest, artifacts=artifacts), chunks).write(path)
    report = edgekd.selftest(path, target="tensorrt", frames=3)
    assert [item for item in report.checks if item.status == "failed"] == []
    assert {item.name for item in report.checks if item.status == "skipped"} == {"export", "dla"}
    assert len(report.checks) == 22
    assert [item.runtime for item in report.sessions] == ["TensorRT 10.3.0"] * 2
    assert board.tensorrt.builds == 4, "the second start finds what the first kept, and `build` keeps nothing"


@pytest.mark.parametrize("version", ["10.3.0", "8.5.2"])
def test_layers_are_what_tensorrt_reports_in_a_context_of_their_own(board: Board, version: str) -> None:
    board.tensorrt = FakeTensorRT(version)
    pixels = np.zeros((1, 3, bundles.HEIGHT, bundles.WIDTH), np.float32)
    with start() as session:
        device = board.devices[-1]
        if version == "10.3.0":
            session.detect([frame()], REQUEST)
        live, streams, made = len(device.live), device.streams, board.tensorrt.contexts
        layers = session.layer_times(pixels, 4)
        assert [(item.name, item.ms) for item in layers] == board.tensorrt.layers
        assert board.tensorrt.contexts == made + 1
        assert (len(device.live), device.streams) == (live, streams)
        session.detect([frame()], REQUEST)
        if version == "8.5.2":
            with pytest.raises(SessionError, match="on a session that did nothing before"):
                session.layer_times(pixels, 1)
