"""The CUDA kernels keep what the reference keeps, to the bit: emulated on the host, and on a GPU where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd import geometry

from .cuda_library import BAD_ARGUMENT, SMALL_WORKSPACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .cuda_library import CudaKernels

MOST = 4096  # candidates
EVERYTHING = {"conf": -np.inf, "iou": 1.0, "max_det": MOST, "max_candidates": MOST}

# A coarse grid makes ties, identical boxes and overlaps at exactly the threshold common; the rest is hostile.
grid = st.integers(-4, 12).map(float)
hostile = st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 1e19, -1e19, 1e5])
coordinates = st.one_of(grid, grid, grid, st.floats(-50, 50, width=32), hostile).map(np.float32)
confidences = st.sampled_from([0.1, 0.5, 0.5, 0.9, 0.0, -0.0, 0.25, -1.0, 1e-7, np.nan, np.inf, -np.inf, 6e4])
thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0])


def _assert_same(cuda: CudaKernels, boxes: NDArray[np.float32], scores: NDArray, **options) -> list[int]:
    """Compare a batch with the reference, image by image; return how many boxes each kept.

    Where the one kernel of a block an image can do it, it has to give the same bits.
    """
    results = cuda.suppress(boxes, scores, **options)
    in_block = cuda.suppress(boxes, scores, block=True, **options) if _fits_a_block(scores, options) else results
    for one, other in zip(results, in_block, strict=True):
        assert [array.tobytes() for array in one] == [array.tobytes() for array in other]
    for image, ours in enumerate(results):
        reference = geometry.suppress(boxes[image], scores[image].astype(np.float32), **options)
        for a, b in zip(ours, reference, strict=True):
            assert a.shape == b.shape
            np.testing.assert_array_equal(a.view(np.uint32), b.astype(a.dtype).view(np.uint32))
    return [len(labels) for _, _, labels in results]


def _fits_a_block(scores: NDArray, options: dict[str, object]) -> bool:
    plain = options.get("metric", "iou") == "iou" and not options.get("every_class")
    return plain and options.get("classes") is None and scores.dtype == np.float32


def _boxes(*shape: int, seed: int = 0, size: float = 0.2, span: float = 640, columns: int = 4) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centre, half = rng.random((*shape, 2)) * span, (rng.random((*shape, 2)) * size * span + 1) / 2
    if columns == 5:
        return np.concatenate([centre, half * [2, 0.7], rng.random((*shape, 1)) * 4 - 2], axis=-1).astype(np.float32)
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)


def _scores(*shape: int, seed: int = 0, digits: int = 2) -> NDArray[np.float32]:
    return np.round(np.random.default_rng(seed).random(shape), digits).astype(np.float32)  # many ties


@st.composite
def problems(draw) -> tuple[NDArray[np.float32], NDArray]:
    batch, n, classes = draw(st.integers(1, 2)), draw(st.integers(0, 70)), draw(st.integers(0, 9))
    columns = draw(st.sampled_from([4, 5]))
    boxes = draw(hnp.arrays(np.float32, (batch, n, columns), elements=coordinates))
    if columns == 4 and draw(st.booleans()):
        low, high = boxes[..., :2], boxes[..., 2:]
        boxes = np.concatenate([np.minimum(low, high), np.maximum(low, high)], axis=-1)
    dtype = draw(st.sampled_from([np.float32, np.float16]))
    return boxes, draw(hnp.arrays(dtype, (batch, n, classes), elements=confidences.map(dtype)))


@settings(max_examples=100, deadline=None)
@given(problems(), thresholds, st.integers(1, 80), st.integers(1, 80), st.data())
def test_any_output_of_a_network_gives_the_reference(cuda, problem, iou, max_det, max_candidates, data) -> None:
    boxes, scores = problem
    columns = st.lists(st.integers(0, scores.shape[2] - 1), max_size=3) if scores.shape[2] else st.just([])
    conf = data.draw(st.sampled_from([-np.inf, -1.0, 0.0, 0.1, 0.25, 0.5, np.inf]))
    cuda.order(data.draw(st.integers(0, 2**32 - 1)))
    _assert_same(
        cuda, boxes, scores, conf=conf, iou=iou, max_det=max_det, max_candidates=max_candidates,
        classes=data.draw(st.none() | columns),
        metric=data.draw(st.sampled_from(["iou", "probiou"])) if boxes.shape[2] == 5 else "iou",
        every_class=data.draw(st.booleans()),
    )  # fmt: skip


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 513, 1000, 1500])
@pytest.mark.parametrize("size", [0.02, 0.5])
def test_any_number_of_boxes_gives_the_reference(cuda, n, size) -> None:
    boxes, scores = _boxes(1, n, seed=n, size=size), _scores(1, n, 1 + n % 3, seed=n)
    _assert_same(cuda, boxes, scores, conf=-1.0, iou=0.45, max_det=2000, max_candidates=2000)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 129, 800])
@pytest.mark.parametrize("size", [0.05, 0.5])
@pytest.mark.parametrize("metric", ["iou", "probiou"])
def test_any_number_of_rotated_boxes_gives_the_reference(cuda, n, size, metric) -> None:
    boxes, scores = _boxes(2, n, seed=n, size=size, columns=5), _scores(2, n, 2, seed=n)
    kept = _assert_same(cuda, boxes, scores, conf=-1.0, iou=0.3, max_det=1000, max_candidates=1000, metric=metric)
    assert n < 800 or max(kept) < n


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (257, 1), (9, 3), (333, 7), (100, 83), (8400, 1), (2100, 80)])
@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_candidates_of_any_shape_are_those_of_the_reference(cuda, shape, share) -> None:
    rng = np.random.default_rng(1)
    scores = rng.random((1, *shape), np.float32) * np.float32(0.25)
    scores[rng.random(scores.shape) < share] += np.float32(0.5)
    _assert_same(cuda, _boxes(1, shape[0]), scores, **{**EVERYTHING, "conf": 0.25, "max_candidates": 300})


@pytest.mark.parametrize("limit", [1, 2, 63, 64, 65, 128, 300, 1024])
@pytest.mark.parametrize("digits", [0, 2, 7])
def test_more_candidates_than_wanted_leave_the_best(cuda, limit, digits) -> None:
    """With few distinct scores the last of the best is found among equal ones, by its row."""
    scores = _scores(2, 3000, 1, digits=digits) - np.float32(0.5)
    options = {"conf": -np.inf, "iou": 0.9, "max_det": limit, "max_candidates": limit}
    _assert_same(cuda, _boxes(2, 3000), scores, **options)


def test_as_many_candidates_as_there_may_be_give_the_reference(cuda) -> None:
    kept = _assert_same(cuda, _boxes(1, 5000, size=0.05), _scores(1, 5000, 1), **{**EVERYTHING, "iou": 0.3})
    assert 1000 < kept[0] < MOST


@pytest.mark.parametrize("shape", [(1, 1), (3, 341), (64, 16), (1025, 1), (31, 33), (205, 5), (700, 41)])
@pytest.mark.parametrize("share", [0.01, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_class_of_any_shape_gives_the_reference(cuda, shape, share, dtype) -> None:
    rng = np.random.default_rng(2)
    scores = (np.round(rng.random((2, *shape)), 1) / 4 + (rng.random((2, *shape)) < share) / 2).astype(dtype)
    options = {"conf": 0.25, "iou": 0.5, "max_det": MOST, "every_class": True}
    for limit in (1, 64, 300, 1000):
        _assert_same(cuda, _boxes(2, shape[0]), scores, **options, max_candidates=limit)
    odd = range(1, shape[1], 2)
    _assert_same(cuda, _boxes(2, shape[0]), scores, **options, max_candidates=500, classes=odd)


def test_every_class_over_the_threshold_is_a_detection_of_its_own(cuda) -> None:
    """Ties go by row, then class; the same box under another label is not suppressed."""
    boxes = np.float32([[[0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 30, 30]]])
    scores = np.float32([[[0.5, 0.9, 0.5], [0.5, 0.5, 0.1], [0.9, 0.5, 0.9]]])
    options = {"conf": 0.25, "iou": 0.5, "max_det": 9, "max_candidates": 9, "every_class": True}
    (found,) = cuda.suppress(boxes, scores, **options)
    kept, best, labels = found
    assert kept[:, 0].tolist() == [0, 20, 20, 0, 0, 20]
    assert best.tolist() == np.float32([0.9] * 3 + [0.5] * 3).tolist()
    assert labels.tolist() == [1, 0, 2, 0, 2, 1]
    _assert_same(cuda, boxes, scores, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("columns", [4, 5])
def test_every_class_of_a_usual_network_gives_the_reference(cuda, dtype, columns) -> None:
    scores = (np.random.default_rng(5).random((2, 2100, 80), np.float32) ** 8).astype(dtype)
    options = {"max_det": 100, "max_candidates": 1000, "conf": 0.01, "iou": 0.6, "every_class": True}
    assert _assert_same(cuda, _boxes(2, 2100, columns=columns), scores, **options) == [100, 100]


def test_workspace_grows_with_classes_only_where_every_class_competes(cuda) -> None:
    space = cuda.lib.edgekd_cuda_suppress_workspace
    one = space(1, 8400, 4, 1, 0, 1000)
    assert space(1, 8400, 4, 80, 0, 1000) == one == space(1, 8400, 4, 1, 1, 1000)
    assert space(1, 8400, 4, 80, 1, 1000) == one + 79 * 8400 * 8


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_output_of_a_usual_network_gives_the_reference(cuda, dtype) -> None:
    scores = (np.random.default_rng(5).random((1, 8400, 80), np.float32) ** 8).astype(dtype)
    for options in ({"max_det": 100, "max_candidates": 1000}, {"max_det": 300, "max_candidates": 300, "classes": [5]}):
        _assert_same(cuda, _boxes(1, 8400), scores, conf=0.5, iou=0.6, **options)


def test_every_half_is_read_exactly(cuda) -> None:
    halves = np.arange(2**16).astype(np.uint16).view(np.float16).reshape(256, 256, 1)
    boxes = np.tile(np.float32([[i, 0, i + 1, 1] for i in range(256)]), (256, 1, 1))
    results = cuda.suppress(boxes, halves, conf=-np.inf, iou=0.0, max_det=256, max_candidates=256)
    for (_, ours, _), image in zip(results, halves.astype(np.float32)[:, :, 0], strict=True):
        np.testing.assert_array_equal(ours, np.sort(image[np.isfinite(image)])[::-1])


def test_batch_of_mixed_images_equals_each_image_alone(cuda) -> None:
    """Nothing passes from an empty, a full or a hostile image to its neighbours."""
    boxes, scores = _boxes(6, 200, size=0.4), _scores(6, 200, 3)
    scores[1] = 0  # no candidate
    boxes[2, ::2] = np.nan
    scores[3, 10:] = np.nan
    boxes[4] = boxes[4, 0]
    options = {"conf": 0.3, "iou": 0.5, "max_det": 40, "max_candidates": 150}
    kept = _assert_same(cuda, boxes, scores, **options)
    alone = [_assert_same(cuda, boxes[i, None], scores[i, None], **options)[0] for i in range(6)]
    assert kept == alone
    assert (kept[1], kept[4], max(kept)) == (0, 3, 40)


@pytest.mark.parametrize("iou", [0.0, 0.99, 1.0])
def test_identical_boxes_leave_one_unless_the_threshold_is_one(cuda, iou) -> None:
    boxes, scores = np.tile(np.float32([1, 2, 3, 4]), (1, 300, 1)), np.full((1, 300, 1), 0.5, np.float32)
    kept = _assert_same(cuda, boxes, scores, **{**EVERYTHING, "iou": iou})
    assert kept == [300 if iou == 1.0 else 1]


def test_overlap_at_exactly_the_threshold_keeps_both(cuda) -> None:
    boxes, scores = np.float32([[[0, 0, 2, 1], [0, 0, 1, 1]]]), np.float32([[[0.9], [0.8]]])
    assert _assert_same(cuda, boxes, scores, **{**EVERYTHING, "iou": 0.5}) == [2]
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert _assert_same(cuda, boxes, scores, **{**EVERYTHING, "iou": below}) == [1]


@pytest.mark.parametrize("metric", ["iou", "probiou"])
def test_rotated_overlap_is_that_of_the_reference_to_the_last_bit(cuda, metric) -> None:
    """Each pair at its own overlap, where both stay, and the number below it, where one goes."""
    pairs = _boxes(30, 2, seed=3, size=2, span=40, columns=5)
    for pair in pairs:
        overlap = geometry.iou_rotated(pair[:1], pair[1:], metric=metric)[0, 0]
        options = {**EVERYTHING, "metric": metric}
        for scores in np.float32([[[0.9], [0.8]]]), np.float32([[[0.8], [0.9]]]):
            assert _assert_same(cuda, pair[None], scores, **{**options, "iou": overlap}) == [2]
            if overlap > 0:
                below = float(np.nextafter(overlap, np.float32(0)))
                assert _assert_same(cuda, pair[None], scores, **{**options, "iou": below}) == [1]
    assert (geometry.iou_rotated(pairs[:, 0], pairs[:, 1]).diagonal() > 0).sum() > 20


def test_score_at_exactly_the_threshold_is_left_out(cuda) -> None:
    above = np.nextafter(np.float32(0.25), np.float32(1))
    assert _assert_same(cuda, _boxes(1, 2), np.float32([[[0.25], [above]]]), **{**EVERYTHING, "conf": 0.25}) == [1]


def test_zeros_of_both_signs_are_equal_scores(cuda) -> None:
    """By row, then by class, each with the sign it has."""
    zeros = np.float32([[[-0.0, 0.0], [0.0, -0.0], [-0.0, -1.0]]])
    assert _assert_same(cuda, _boxes(1, 3), zeros, **{**EVERYTHING, "conf": -0.5}) == [3]


def test_boxes_of_different_classes_never_meet(cuda) -> None:
    boxes = np.tile(np.float32([-9, -9, 3, 4]), (1, 90, 1))
    scores = np.zeros((1, 90, 30), np.float32)
    scores[0, np.arange(90), np.arange(90) % 30] = _scores(90)
    assert _assert_same(cuda, boxes, scores, **{**EVERYTHING, "iou": 0.5, "conf": 0.0}) == [30]


@pytest.mark.parametrize("shift", [-1e5, 1e5])
def test_boxes_far_from_the_origin_give_the_reference(cuda, shift) -> None:
    boxes = _boxes(1, 500) + np.float32(shift)
    boxes[0, ::100] = [-1e15, -1e15, 1e15, 1e15]
    _assert_same(cuda, boxes, _scores(1, 500, 1), **{**EVERYTHING, "iou": 0.5})


def test_hundred_runs_in_different_orders_give_the_same_bits(cuda) -> None:
    boxes, scores = _boxes(2, 300), _scores(2, 300, 2, digits=1)
    options = {"conf": 0.2, "iou": 0.5, "max_det": 90, "max_candidates": 200}
    results = set()
    for seed in range(100):
        cuda.order(seed)
        results.add(b"".join(array.tobytes() for image in cuda.suppress(boxes, scores, **options) for array in image))
    assert len(results) == 1


def test_captured_graph_gives_the_same_bits(cuda) -> None:
    """Replayed, it starts from what the run before left in its workspace."""
    if cuda.emulated:
        pytest.skip("a CUDA graph needs a GPU")
    boxes, scores = _boxes(2, 300), _scores(2, 300, 2)
    options = {"conf": 0.2, "iou": 0.5, "max_det": 90, "max_candidates": 200}
    job = cuda.suppress_job(boxes, scores, **options)
    cuda.time("suppress", job, 3)
    count, kept = cuda.field(job, "out_count"), cuda.field(job, "out_boxes")
    cuda.memory.free()
    for image, (expected, _, _) in enumerate(cuda.suppress(boxes, scores, **options)):
        np.testing.assert_array_equal(kept[image, : count[image]], expected)


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("batch", 0, BAD_ARGUMENT), ("batch", 65536, BAD_ARGUMENT), ("rows", -1, BAD_ARGUMENT),
        ("classes", -1, BAD_ARGUMENT), ("classes", 2**29, BAD_ARGUMENT), ("columns", 3, BAD_ARGUMENT),
        ("metric", 1, BAD_ARGUMENT), ("max_candidates", 0, BAD_ARGUMENT),
        ("max_candidates", MOST + 1, BAD_ARGUMENT), ("max_det", 0, BAD_ARGUMENT), ("iou", -0.1, BAD_ARGUMENT),
        ("iou", 1.1, BAD_ARGUMENT), ("iou", np.nan, BAD_ARGUMENT), ("conf", np.nan, BAD_ARGUMENT),
        ("boxes", None, BAD_ARGUMENT), ("scores", None, BAD_ARGUMENT), ("out_count", None, BAD_ARGUMENT),
        ("workspace", None, SMALL_WORKSPACE), ("workspace_bytes", 100, SMALL_WORKSPACE),
        ("workspace_bytes", -1, SMALL_WORKSPACE),
    ],
)  # fmt: skip
def test_suppress_refuses_with_a_status_and_writes_nothing(cuda, field, value, status) -> None:
    job = cuda.suppress_job(_boxes(1, 9), _scores(1, 9, 2), conf=0.1, iou=0.5, max_det=9, max_candidates=9)
    counts = cuda.ffi.new("struct edgekd_suppress_job *", job[0]).out_count
    setattr(job, field, cuda.ffi.NULL if value is None else value)
    assert cuda.lib.edgekd_cuda_suppress(job, cuda.ffi.NULL) == status
    job.out_count = counts
    assert cuda.field(job, "out_count").tolist() == [-7]
    cuda.memory.free()


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, {"half_scores": 1}), ({"every_class": True}, {}), ({"classes": [1]}, {}), ({}, {"metric": 1}),
        ({}, {"workspace_bytes": 1000}),  # enough for one image
    ],
)  # fmt: skip
def test_one_kernel_refuses_what_it_cannot_do(cuda, options, change) -> None:
    options = {"conf": 0.1, "iou": 0.5, "max_det": 9, "max_candidates": 9, **options}
    job = cuda.suppress_job(_boxes(2, 9), _scores(2, 9, 2), block=True, **options)
    for field, value in change.items():
        setattr(job, field, value)
    status = SMALL_WORKSPACE if "workspace_bytes" in change else BAD_ARGUMENT
    assert cuda.lib.edgekd_cuda_suppress_block(job, cuda.ffi.NULL) == status
    assert cuda.field(job, "out_count").tolist() == [-7, -7]
    cuda.memory.free()


def test_suppress_refuses_a_workspace_off_64_bytes(cuda) -> None:
    job = cuda.suppress_job(_boxes(1, 9), _scores(1, 9, 2), conf=0.1, iou=0.5, max_det=9, max_candidates=9)
    job.workspace = cuda.ffi.cast("char *", job.workspace) + 8
    assert cuda.lib.edgekd_cuda_suppress(job, cuda.ffi.NULL) == BAD_ARGUMENT
    cuda.memory.free()


def test_workspaces_of_bad_sizes_are_errors(cuda) -> None:
    wrong = [(0, 9, 4, 2, 0, 9), (1, -1, 4, 2, 0, 9), (1, 9, 3, 2, 0, 9), (1, 9, 4, -1, 0, 9), (1, 9, 4, 2, 0, 0)]
    for sizes in [*wrong, (1, 9, 4, 2, 0, MOST + 1), (1, 2**16, 4, 2**16, 0, 9), (1, 2**16, 4, 2**16, 1, 9)]:
        assert cuda.lib.edgekd_cuda_suppress_workspace(*sizes) == BAD_ARGUMENT
    assert cuda.lib.edgekd_cuda_suppress_workspace(1, 2**16, 4, 2**16 - 1, 1, 9) > (2**32 - 2**16) * 8
