"""Methods are found by file name and built from recipe options."""

from __future__ import annotations

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
