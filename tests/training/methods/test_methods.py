"""Methods are found by file name and built from recipe options."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from edgekd.errors import RecipeError
from edgekd.training import methods


def test_names_are_the_files() -> None:
    from pathlib import Path

    files = {path.stem for path in Path(methods.__file__).parent.glob("*.py")}
    assert set(methods.names()) == {file for file in files if not file.startswith("_")}
    assert "pkd" in files


@pytest.mark.parametrize("name", methods.names())
def test_every_method_file_holds_a_documented_method_that_builds_with_defaults(name: str) -> None:
    built = methods.method(name)
    assert isinstance(built, methods.Method)
    assert type(built).__doc__


def test_options_reach_the_method_and_integers_pass_as_floats() -> None:
    assert methods.method("pkd", factor=6).factor == 6.0  # type: ignore[attr-defined]


def test_unknown_method_lists_the_possible_ones() -> None:
    with pytest.raises(RecipeError, match=r"no distillation method 'pdk'; possible: .*pkd"):
        methods.method("pdk")


def test_unknown_option_lists_the_possible_ones() -> None:
    with pytest.raises(
        RecipeError, match=r"distill.options of pkd\] has no key 'wieght'; possible: adapt, eps, factor"
    ):
        methods.method("pkd", wieght=3.0)


def test_option_of_the_wrong_type_is_named() -> None:
    with pytest.raises(RecipeError, match="factor should be float, got 'ten'"):
        methods.method("pkd", factor="ten")


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", methods.names())
def test_numbers_that_would_turn_a_loss_around_or_break_it_are_named(name: str, value: float) -> None:
    built: Any = methods.method(name)
    numbers = [each.name for each in dataclasses.fields(built) if each.type in ("float", "float | None")]
    assert numbers
    for number in numbers:
        with pytest.raises(RecipeError, match=rf"^{name}: {number} is {value}; it "):
            methods.method(name, **{number: value})
