"""The C ABI by itself: status codes instead of crashes, and nothing done on a refusal."""

from __future__ import annotations

import numpy as np
import pytest

native_module = pytest.importorskip("edgekd._native", reason="the kernels were not compiled")
ffi, lib = native_module.ffi, native_module.lib

OK, BAD_ARGUMENT, SMALL_WORKSPACE = 0, -1, -2


def _nms(
    n: int = 3, iou: float = 0.5, limit: int = 3, instructions: int = 0, space: int | None = None, **null: bool
) -> int:
    boxes, scores = np.zeros((4, 4), np.float32), np.zeros(4, np.float32)
    keep, count = np.full(4, -7, np.int64), ffi.new("int64_t *", -7)
    needed = lib.edgekd_nms_workspace(max(n, 0) if n < 100 else 3)
    memory = np.empty(needed, np.uint8)
    status: int = lib.edgekd_nms(
        ffi.NULL if null.get("boxes") else ffi.from_buffer("float[]", boxes),
        ffi.from_buffer("float[]", scores), ffi.NULL,
        n, iou, limit, ffi.from_buffer("int64_t[]", keep), count, instructions,
        ffi.NULL if null.get("workspace") else ffi.from_buffer(memory), needed if space is None else space,
    )  # fmt: skip
    if status != OK:
        assert count[0] == -7
        assert (keep == -7).all()
    return status


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({}, OK),
        ({"n": 0}, OK),
        ({"n": -1}, BAD_ARGUMENT),
        ({"n": 2**62}, BAD_ARGUMENT),
        ({"iou": float("nan")}, BAD_ARGUMENT),
        ({"limit": 0}, BAD_ARGUMENT),
        ({"boxes": True}, BAD_ARGUMENT),
        ({"instructions": 77}, BAD_ARGUMENT),
        ({"space": 10}, SMALL_WORKSPACE),
        ({"space": -1}, SMALL_WORKSPACE),
        ({"workspace": True}, SMALL_WORKSPACE),
    ],
)
def test_nms_refuses_with_a_status(arguments, status) -> None:
    assert _nms(**arguments) == status


@pytest.mark.parametrize("bad", [0, -1, 2**40])
def test_letterbox_workspace_of_a_bad_size_is_an_error(bad) -> None:
    assert lib.edgekd_letterbox_workspace(bad, 4) == BAD_ARGUMENT
    assert lib.edgekd_letterbox_workspace(4, bad) == BAD_ARGUMENT


@pytest.mark.parametrize("bad", [-1, 2**62])
def test_workspaces_of_a_bad_size_are_errors(bad) -> None:
    assert lib.edgekd_nms_workspace(bad) == BAD_ARGUMENT
    assert lib.edgekd_candidates_workspace(bad, 3, 0, 9) == BAD_ARGUMENT
    assert lib.edgekd_suppress_workspace(bad, 4, 3, 0, 10) == BAD_ARGUMENT
    assert lib.edgekd_suppress_workspace(10, 4, 3, 0, 0) == BAD_ARGUMENT
    assert lib.edgekd_suppress_workspace(10, 6, 3, 0, 10) == BAD_ARGUMENT
    assert lib.edgekd_nms_rotated_workspace(bad) == BAD_ARGUMENT
    assert lib.edgekd_merge_tiles_workspace(bad) == BAD_ARGUMENT
    assert lib.edgekd_iou_workspace(bad) == BAD_ARGUMENT
    assert lib.edgekd_iou_rotated_workspace(bad) == BAD_ARGUMENT
    assert lib.edgekd_iou_rotated_float64_workspace(bad) == BAD_ARGUMENT


def test_room_for_every_class_follows_the_limit_and_never_overflows() -> None:
    few, all_of_them = (lib.edgekd_candidates_workspace(8400, 80, 1, limit) for limit in (300, 10**9))
    assert few < 20_000 < all_of_them
    assert lib.edgekd_candidates_workspace(2**40, 2**31 - 1, 1, 2**62) > 0


IMAGE, CHROMA, OUT = np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4), np.uint8), np.full((3, 8, 8), np.nan, np.float32)
GREY, NV12, YUYV, UINT8, INT8 = 0, 3, 4, 2, 3


def named(change: dict[str, object]) -> str:
    """Name a case; a pointer would name it differently in every process."""
    return ", ".join(
        f"{name} {value}" if isinstance(value, (int, float, tuple)) else name for name, value in change.items()
    )


def _letterbox(space: int | None = None, instructions: int = 0, **change: object) -> int:
    """Call the kernel with one or more members of its two structs changed."""
    frame = {
        "data": ffi.from_buffer("uint8_t[]", IMAGE), "chroma": ffi.from_buffer("uint8_t[]", CHROMA), "row_stride": 12,
        "chroma_stride": 4, "height": 4, "width": 4, "pixels": 1,
    }  # fmt: skip
    canvas = {
        "out": ffi.from_buffer("void *", OUT), "out_height": 8, "out_width": 8, "new_height": 4, "new_width": 4,
        "left": 2, "top": 2, "values": 0, "layout": 0, "swap": 0, "pad": 0, "mean": (0.0,) * 3, "std": (1.0,) * 3,
        "scale": 0.0, "zero_point": 999,
    }  # fmt: skip
    assert change.keys() <= frame.keys() | canvas.keys()
    frame = {name: change.get(name, value) for name, value in frame.items()}
    canvas = {name.removeprefix("out_"): change.get(name, value) for name, value in canvas.items()}
    canvas["data"] = canvas.pop("out")
    needed = lib.edgekd_letterbox_workspace(4, 4)
    memory, bytes_given = ffi.new("char[]", needed), needed if space is None else space
    frame, canvas = ffi.new("edgekd_frame *", frame), ffi.new("edgekd_canvas *", canvas)
    status: int = lib.edgekd_letterbox(frame, canvas, 0, instructions, memory, bytes_given)
    return status


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": -1}, {"pixels": 5}, {"height": 0}, {"width": 2**33}, {"row_stride": 2**39}, {"row_stride": -(2**39)},
        {"data": ffi.NULL}, {"pixels": NV12, "chroma": ffi.NULL}, {"pixels": NV12, "chroma_stride": 2**39},
        {"pixels": NV12, "height": 3}, {"pixels": NV12, "width": 3}, {"pixels": YUYV, "width": 3},
        {"out": ffi.NULL}, {"out": ffi.cast("void *", OUT.ctypes.data + 2)}, {"out_height": 0}, {"out_width": 2**33},
        {"new_width": 9}, {"new_height": 9}, {"new_width": 0}, {"left": -1}, {"top": 5}, {"left": 2**63 - 1},
        {"values": -1}, {"values": 4}, {"layout": 2}, {"layout": -1}, {"pad": 256}, {"pad": -1},
        {"std": (1.0, -1.0, 1.0)}, {"std": (1.0, float("nan"), 1.0)}, {"std": (1.0, float("inf"), 1.0)},
        {"std": (1.0, 1e-40, 1.0)}, {"mean": (0.0, float("nan"), 0.0)}, {"mean": (0.0, float("inf"), 0.0)},
        {"values": UINT8, "zero_point": 0}, {"values": UINT8, "scale": 1.0, "zero_point": 256},
        {"values": UINT8, "scale": 1.0, "zero_point": -1}, {"values": INT8, "scale": 1.0, "zero_point": 128},
        {"values": INT8, "scale": -1.0, "zero_point": 0}, {"instructions": 77}, {"instructions": -1},
    ],
    ids=named,
)  # fmt: skip
def test_letterbox_refuses_what_would_leave_its_memory(change) -> None:
    OUT.fill(np.nan)
    assert _letterbox(**change) == BAD_ARGUMENT
    assert np.isnan(OUT).all()


@pytest.mark.parametrize("space", [0, 100, -1])
def test_letterbox_with_too_little_workspace_does_nothing(space) -> None:
    OUT.fill(np.nan)
    assert _letterbox(space=space) == SMALL_WORKSPACE
    assert np.isnan(OUT).all()


@pytest.mark.parametrize(
    "change",
    [
        {}, {"pixels": GREY, "row_stride": 4, "chroma": ffi.NULL, "chroma_stride": 2**60}, {"pixels": NV12},
        {"pixels": YUYV, "row_stride": 8}, {"layout": 1}, {"values": 1},
        {"values": INT8, "scale": 1.0, "zero_point": -128},
    ],
    ids=named,
)  # fmt: skip
def test_letterbox_looks_at_no_more_than_it_needs(change) -> None:
    assert _letterbox(**change) == OK


def test_letterbox_without_its_structs_refuses() -> None:
    frame, canvas = ffi.new("edgekd_frame *"), ffi.new("edgekd_canvas *")
    assert lib.edgekd_letterbox(ffi.NULL, canvas, 0, 0, ffi.NULL, 0) == BAD_ARGUMENT
    assert lib.edgekd_letterbox(frame, ffi.NULL, 0, 0, ffi.NULL, 0) == BAD_ARGUMENT
    assert lib.edgekd_letterbox(frame, canvas, 0, 0, ffi.NULL, 0) == BAD_ARGUMENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("map", ffi.NULL), ("height", 0), ("width", 2**33), ("weights", ffi.NULL), ("weights", (1.0, float("nan"))),
        ("weights", (1.0, float("inf"))), ("radius", -1), ("radius", 2**14 + 1), ("out_map", ffi.NULL),
        ("out_mask", ffi.NULL), ("out_height", 0), ("out_width", 2**24 + 1), ("threshold", float("nan")),
        ("min_area", -1), ("limit", 0), ("boxes", ffi.NULL), ("areas", ffi.NULL), ("peaks", ffi.NULL),
        ("count", ffi.NULL), ("instructions", 77),
    ],
)  # fmt: skip
def test_regions_refuse_what_would_leave_their_memory(name, value) -> None:
    out_map, out_mask = np.full((6, 8), -7, np.float32), np.full((6, 8), 7, np.uint8)
    boxes, areas, peaks = np.full((2, 4), -7, np.float32), np.full(2, -7, np.int64), np.full(2, -7, np.float32)
    count, space = ffi.new("int64_t *", -7), lib.edgekd_regions_workspace(4, 1, 6, 8)
    arguments = {
        "map": ffi.from_buffer("float[]", np.ones((3, 4), np.float32)), "height": 3, "width": 4, "weights": (0.5, 0.25),
        "radius": 1, "out_map": ffi.from_buffer("float[]", out_map), "out_mask": ffi.from_buffer("uint8_t[]", out_mask),
        "out_height": 6, "out_width": 8, "threshold": 0.5, "min_area": 1, "limit": 2,
        "boxes": ffi.from_buffer("float[]", boxes), "areas": ffi.from_buffer("int64_t[]", areas),
        "peaks": ffi.from_buffer("float[]", peaks), "count": count, "instructions": 0,
        "workspace": ffi.new("char[]", space), "space": space,
    }  # fmt: skip
    assert lib.edgekd_regions(*{**arguments, name: value}.values()) == BAD_ARGUMENT
    assert lib.edgekd_regions(*{**arguments, "space": space - 65}.values()) == SMALL_WORKSPACE
    assert lib.edgekd_regions(*{**arguments, "workspace": ffi.NULL}.values()) == SMALL_WORKSPACE
    for untouched in (out_map, out_mask, boxes, areas, peaks):
        assert (np.abs(untouched.astype(np.float64)) == 7).all()
    assert count[0] == -7
    assert lib.edgekd_regions(*arguments.values()) == OK
    assert (count[0], boxes[0].tolist(), areas.tolist(), peaks.tolist()) == (1, [0, 0, 8, 6], [48, -7], [1, -7])
    assert (boxes[1] == -7).all()


@pytest.mark.parametrize("bad", [(0, 1, 6, 8), (4, -1, 6, 8), (4, 2**14 + 1, 6, 8), (4, 1, 0, 8), (4, 1, 2**17, 2**17)])
def test_regions_workspace_of_a_bad_size_is_an_error(bad) -> None:
    assert lib.edgekd_regions_workspace(*bad) == BAD_ARGUMENT
