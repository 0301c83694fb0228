"""Masks of boxes on a grid, against a plain reference in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.training.methods._masks import Masks, box_masks

Box = tuple[float, float, float, float]
Size = tuple[int, int]


def plain(boxes: list[Box], image: Size, grid: Size, clamp: bool = True) -> Masks:
    """Paint one image cell by cell, `(1, H, W)`."""
    foreground = torch.zeros(grid)
    for x1, y1, x2, y2 in boxes:
        if not (max(x1, 0) < min(x2, image[1]) and max(y1, 0) < min(y2, image[0])):
            continue
        left, top = (
            math.floor(Fraction(at) * n / of) for at, n, of in ((x1, grid[1], image[1]), (y1, grid[0], image[0]))
        )
        right, low = (
            math.ceil(Fraction(at) * n / of) for at, n, of in ((x2, grid[1], image[1]), (y2, grid[0], image[0]))
        )
        if clamp:
            left, right = (min(max(at, 0), grid[1] - 1) for at in (left, right))
            top, low = (min(max(at, 0), grid[0] - 1) for at in (top, low))
        for row in range(max(top, 0), min(low, grid[0] - 1) + 1):
            for column in range(max(left, 0), min(right, grid[1] - 1) + 1):
                share = 1 / ((low - top + 1) * (right - left + 1))
                foreground[row, column] = max(share, float(foreground[row, column]))
    background = (foreground == 0).float()
    return Masks(foreground[None], (background / max(1.0, float(background.sum())))[None])


def masks(boxes: list[Box], image: Size = (64, 64), grid: Size = (8, 8), clamp: bool = True) -> Masks:
    return box_masks([torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)], image, grid, clamp=clamp)


sides = st.integers(1, 12)
edges = st.integers(-200, 400).map(lambda quarter: quarter / 4)
boxes_ = st.lists(st.tuples(edges, edges, edges, edges), max_size=6)
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=300, deadline=None)
@given(boxes_, sizes, st.tuples(sides, sides), st.booleans())
def test_masks_equal_the_plain_reference(boxes: list[Box], image: Size, grid: Size, clamp: bool) -> None:
    found, expected = masks(boxes, image, grid, clamp), plain(boxes, image, grid, clamp)
    assert torch.allclose(found.foreground, expected.foreground, rtol=1e-6, atol=0)
    assert torch.allclose(found.background, expected.background, rtol=1e-6, atol=0)


@settings(max_examples=100, deadline=None)
@given(boxes_, sizes, st.tuples(sides, sides))
def test_masks_never_overlap_and_the_background_sums_to_one_or_nothing(
    boxes: list[Box], image: Size, grid: Size
) -> None:
    found = masks(boxes, image, grid)
    assert float((found.foreground * found.background).abs().max()) == 0
    total = float(found.background.sum())
    assert total == 0 if bool((found.foreground > 0).all()) else total == pytest.approx(1, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(-1, 2, width=32)] * 4), sizes, st.tuples(sides, sides))
def test_foreground_of_a_single_box_sums_to_one_or_nothing(at: Box, image: Size, grid: Size) -> None:
    (left, right), (top, low) = sorted(at[:2]), sorted(at[2:])
    box = tuple(torch.tensor([left * image[1], top * image[0], right * image[1], low * image[0]]).tolist())
    visible = max(box[0], 0) < min(box[2], image[1]) and max(box[1], 0) < min(box[3], image[0])
    assert float(masks([box], image, grid).foreground.sum()) == pytest.approx(float(visible), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(boxes_, sizes, st.tuples(sides, sides), st.integers(2, 7), st.randoms())
def test_scaling_image_and_boxes_or_shuffling_or_repeating_boxes_changes_nothing(
    boxes: list[Box], image: Size, grid: Size, factor: int, random: object
) -> None:
    before = masks(boxes, image, grid)
    larger = [tuple(factor * at for at in box) for box in boxes]
    scaled = masks(larger, (factor * image[0], factor * image[1]), grid)  # type: ignore[arg-type]
    shuffled = boxes * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for after in (scaled, masks(shuffled, image, grid)):
        assert torch.equal(before.foreground, after.foreground)
        assert torch.equal(before.background, after.background)


@pytest.mark.parametrize("cells", [3, 7, 12])
def test_box_edge_a_rounding_error_off_a_cell_edge_falls_on_its_own_side(cells: int) -> None:
    for at in range(1, cells):
        edge = float(torch.tensor(64 * at / cells))
        box = (1.0, edge, 60.0, 62.0), (edge, 1.0, 62.0, edge)
        for each in box:
            found = masks([each], grid=(cells, cells)).foreground
            assert torch.allclose(found, plain([each], (64, 64), (cells, cells)).foreground)


def test_padding_to_a_larger_canvas_shifts_nothing() -> None:
    boxes: list[Box] = [(3, 5, 30, 41), (20, 8, 55.5, 20)]
    small, large = masks(boxes), masks(boxes, (96, 128), (12, 16))
    assert torch.equal(large.foreground[:, :8, :8], small.foreground)
    assert float(large.foreground[:, 8:].sum() + large.foreground[:, :, 8:].sum()) == 0


def test_box_at_the_border_sums_to_one_only_if_cells_are_counted_inside_the_grid() -> None:
    """15 of 16 counted cells lie inside on either axis: (15/16)² = 0.879."""
    corner: list[Box] = [(8 * 5, 8 * 5, 160, 160)]
    assert float(masks(corner, (160, 160), (20, 20)).foreground.sum()) == pytest.approx(1)
    assert float(masks(corner, (160, 160), (20, 20), clamp=False).foreground.sum()) == pytest.approx(0.8789, abs=1e-4)


def test_nested_boxes_take_the_larger_share() -> None:
    """A box of 3 x 2 cells in one of 8 x 5: 1 + 34/40 = 1.85."""
    nested = masks([(0.5, 0.5, 6.5, 3.5), (1.5, 1.5, 2.5, 1.9)], (20, 20), (20, 20)).foreground
    assert float(nested.sum()) == pytest.approx(1.85, abs=1e-6)
    assert sorted(set(nested.flatten().tolist())) == pytest.approx([0, 1 / 40, 1 / 6])


def test_box_over_all_cells_leaves_no_background() -> None:
    found = masks([(-10, -10, 90, 90)])
    assert float(found.background.abs().max()) == 0
    assert torch.allclose(found.foreground, torch.full((1, 8, 8), 1 / 64))


@pytest.mark.parametrize(
    "boxes",
    [[], [(5, 5, 5, 20)], [(5, 5, 20, 5)], [(70, 5, 90, 20)], [(-20, -20, 0, 0)], [(30, 30, 10, 10)], [(64, 0, 70, 9)]],
    ids=["none", "no width", "no height", "right of it", "above it", "inverted", "touching from outside"],
)
def test_image_without_a_box_inside_is_all_background(boxes: list[Box]) -> None:
    found = masks(boxes)
    assert float(found.foreground.abs().max()) == 0
    assert torch.allclose(found.background, torch.full((1, 8, 8), 1 / 64))


def test_images_of_unlike_numbers_of_boxes_do_not_see_each_other() -> None:
    batch: list[list[Box]] = [[(3, 5, 30, 41), (20, 8, 55, 20)], [], [(40, 40, 50, 60)]]
    found = box_masks([torch.tensor(boxes).reshape(-1, 4) for boxes in batch], (64, 64), (8, 8))
    for index, boxes in enumerate(batch):
        alone = masks(boxes)
        assert torch.equal(found.foreground[index], alone.foreground[0])
        assert torch.equal(found.background[index], alone.background[0])


def test_boxes_are_pixels_and_the_mask_follows_them() -> None:
    """The authors' loop hands over normalised boxes: read as pixels they are the top left 2 x 2 cells, always."""
    for box in ((8.0, 8.0, 20.0, 20.0), (40.0, 24.0, 60.0, 50.0)):
        misread = masks([tuple(at / 64 for at in box)]).foreground[0]  # type: ignore[list-item]
        assert set(map(tuple, misread.nonzero().tolist())) == {(0, 0), (0, 1), (1, 0), (1, 1)}
        cells = masks([box]).foreground[0].nonzero()
        assert cells.amin(dim=0).tolist() == [int(box[1] // 8), int(box[0] // 8)]


def test_oriented_boxes_count_as_their_hulls_beside_images_without_any() -> None:
    turned = torch.tensor([[30.0, 30, 20, 10, math.pi / 4], [11, 51, 8, 5, -math.pi / 2], [40, 40, 9, 0, 0.3]])
    reach = 15 / math.sqrt(2)
    upright: list[Box] = [(30 - reach, 30 - reach, 30 + reach, 30 + reach), (8.5, 47, 13.5, 55)]
    found = box_masks([turned, torch.zeros(0, 4)], (64, 64), (16, 16))
    expected = masks(upright, grid=(16, 16))
    assert torch.equal(found.foreground[0], expected.foreground[0])
    assert torch.equal(found.background[0], expected.background[0])
    assert float(found.foreground[1].max()) == 0
