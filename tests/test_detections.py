"""`Detections`: columns, selection, exports."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd import Detections
from edgekd.errors import UsageError

CLASSES = ("gun", "knife")


def _plain(count: int = 3) -> Detections:
    corners = np.array([[10, 20, 30, 60], [0, 0, 5, 5], [40, 40, 90, 80]], np.float32)[:count]
    return Detections(
        corners,
        np.array([0.9, 0.5, 0.3], np.float32)[:count],
        np.array([1, 0, 1])[:count],
        CLASSES,
        (100, 120),
        {"total": 1.0},
    )


def _oriented() -> Detections:
    return Detections(
        np.array([[50, 40, 20, 10, np.pi / 6]], np.float32),
        np.array([0.8], np.float32),
        np.array([0]),
        CLASSES,
        (100, 120),
    )


def test_columns_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        _plain().boxes[0, 0] = 1


@pytest.mark.parametrize(
    ("boxes", "scores"), [(np.zeros((2, 3)), np.zeros(2)), (np.zeros((2, 4)), np.zeros(3)), (np.zeros(4), np.zeros(1))]
)
def test_wrong_shapes_are_refused_with_got_and_expected(boxes: np.ndarray, scores: np.ndarray) -> None:
    with pytest.raises(UsageError, match="expected shape"):
        Detections(boxes, scores, np.zeros(len(boxes), np.int64), CLASSES, (1, 1))


def test_selection_by_int_slice_mask_and_list_keeps_rows_together() -> None:
    found = _plain()
    assert found[1].names == ["gun"]
    assert len(found[:2]) == 2
    assert found[found.scores > 0.4].names == ["knife", "gun"]
    assert found[[2, 0]].scores.tolist() == pytest.approx([0.3, 0.9])
    assert [row.names[0] for row in found] == found.names


def test_corners_of_plain_and_oriented_boxes() -> None:
    assert _plain().corners[0].tolist() == [[10, 20], [30, 20], [30, 60], [10, 60]]
    found = _oriented()
    corners = found.corners[0]
    assert corners.mean(axis=0) == pytest.approx([50, 40])
    edge = corners[1] - corners[0]
    assert np.hypot(*edge) == pytest.approx(20)
    assert np.arctan2(edge[1], edge[0]) == pytest.approx(np.pi / 6)  # y down: positive is clockwise on the image
    assert found.xyxy[0, 0] == pytest.approx(corners[:, 0].min())


def test_to_dict_is_json() -> None:
    row = json.loads(json.dumps(_plain().to_dict()))
    assert row["names"] == ["knife", "gun", "knife"]
    assert row["layout"] == "xyxy"
    assert row["image_size"] == [100, 120]


def test_to_coco_gives_width_and_height() -> None:
    rows = _plain().to_coco(image_id=7)
    assert rows[0] == {"image_id": 7, "category_id": 1, "bbox": [10, 20, 20, 40], "score": pytest.approx(0.9)}
    assert len(_oriented().to_coco()[0]["segmentation"][0]) == 8


def test_pycocotools_takes_the_rows_and_compares_rectangles_as_segmentations() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    coco = pytest.importorskip("pycocotools.coco").COCO()
    coco.dataset = {"images": [{"id": 7, "height": 100, "width": 120}], "categories": [{"id": 0}], "annotations": []}
    coco.createIndex()
    (row,) = coco.loadRes(_oriented().to_coco(image_id=7)).anns.values()
    x1, y1, x2, y2 = _oriented().xyxy[0].tolist()
    assert row["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    covered = float(mask.area(coco.annToRLE(row)))
    assert covered == pytest.approx(200, rel=0.05), "20 x 10 px, not the hull of 22 x 19"


def test_to_supervision_of_oriented_boxes_draws_their_corners() -> None:
    supervision = pytest.importorskip("supervision")
    theirs = _oriented().to_supervision()
    field = pytest.importorskip("supervision.config").ORIENTED_BOX_COORDINATES
    np.testing.assert_array_equal(theirs.data[field], _oriented().corners)
    drawn = supervision.OrientedBoxAnnotator(thickness=1).annotate(np.zeros((100, 120, 3), np.uint8), theirs)
    for x, y in np.rint(_oriented().corners[0]).astype(int):
        assert drawn[y - 1 : y + 2, x - 1 : x + 2].any()


def test_plot_draws_turned_rectangles_not_their_hulls() -> None:
    drawn = _oriented().plot(np.zeros((100, 120, 3), np.uint8), width=1)
    x1, _, _, y2 = np.rint(_oriented().xyxy[0]).astype(int)
    assert not drawn[y2 - 3 : y2 + 1, x1 : x1 + 3].any(), "the hull's lower left corner is empty"
    for x, y in np.rint(_oriented().corners[0]).astype(int):
        assert drawn[y - 1 : y + 2, x - 1 : x + 2].any()


def test_to_dict_of_oriented_boxes_says_so() -> None:
    row = json.loads(json.dumps(_oriented().to_dict()))
    assert row["layout"] == "xywhr"
    assert row["boxes"][0] == pytest.approx([50, 40, 20, 10, np.pi / 6])


def test_to_supervision_round_trips_the_columns() -> None:
    supervision = pytest.importorskip("supervision")
    theirs = _plain().to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert np.array_equal(theirs.xyxy, _plain().boxes)
    assert theirs.class_id.tolist() == [1, 0, 1]
    assert list(theirs.data["class_name"]) == ["knife", "gun", "knife"]
    assert _oriented().to_supervision().data["xyxyxyxy"].shape == (1, 4, 2)
    assert len(_plain(0).to_supervision()) == 0


def test_plot_draws_on_a_copy_in_the_colour_order_given() -> None:
    image = np.full((100, 120, 3), 255, np.uint8)
    bgr, rgb = _plain().plot(image), _plain().plot(image, color="rgb")
    assert (image == 255).all()
    assert bgr.shape == image.shape
    assert np.array_equal(bgr, rgb[:, :, ::-1])
    assert not np.array_equal(bgr, rgb)
    assert (rgb[20, 12:28] != 255).any()  # the upper edge of the first box


def test_plot_labels_stay_inside_small_and_cut_pictures() -> None:
    found = Detections(
        np.array([[-50, -50, 500, 500], [0, 0, 1, 1]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([0, 1]),
        CLASSES,
        (8, 8),
    )
    assert found.plot(np.zeros((8, 8, 3), np.uint8)).shape == (8, 8, 3)


def test_repr_counts_the_objects() -> None:
    assert repr(_plain()) == "Detections(2 knife, 1 gun; image 120x100 px)"
    assert "nothing" in repr(_plain(0))


def test_plot_moves_the_label_of_a_box_below_the_picture_inside() -> None:
    below = np.array([[2, 200, 60, 240]], np.float32)
    found = Detections(below, np.array([0.9], np.float32), np.array([0]), CLASSES, (100, 120))
    drawn = found.plot(np.full((100, 120, 3), 255, np.uint8))
    assert (drawn[90:] != 255).any()
