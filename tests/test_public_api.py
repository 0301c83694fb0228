"""The facade: exactly these names, each documented and typed."""

from __future__ import annotations

import inspect
import types

import pytest

import edgekd


def test_all_is_what_the_facade_holds() -> None:
    public = {
        name
        for name, value in vars(edgekd).items()
        if not name.startswith("_")
        and not (isinstance(value, types.ModuleType) and name not in edgekd.__all__)
        and name not in ("annotations", "TYPE_CHECKING")
    }
    assert public | {"__version__"} == set(edgekd.__all__)
    assert edgekd.__all__ == sorted(edgekd.__all__)


@pytest.mark.parametrize("name", [name for name in edgekd.__all__ if name != "__version__"])
def test_public_names_have_docstrings(name: str) -> None:
    value = getattr(edgekd, name)
    assert inspect.getdoc(value), name
    if inspect.isclass(value):
        for member, function in inspect.getmembers(value, inspect.isfunction):
            if not member.startswith("_"):
                assert inspect.getdoc(function), f"{name}.{member}"


@pytest.mark.parametrize("name", [name for name in edgekd.__all__ if inspect.isfunction(getattr(edgekd, name))])
def test_public_functions_are_fully_annotated(name: str) -> None:
    signature = inspect.signature(getattr(edgekd, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(item.annotation is not inspect.Parameter.empty for item in signature.parameters.values())


def test_every_verb_is_a_command() -> None:
    from edgekd.cli.main import COMMANDS

    verbs = {"evaluate": "eval", "data_lint": "data", "data_label": "data", "data_synth": "data", "data_tile": "data"}
    verbs |= {
        "profile_compare": "profile",
        "profile_page": "profile",
        "profile_receipt": "profile",
        "import_model": "import",
        "load": "predict",
    }
    verbs |= {
        "export_engine": "export",
        "guard_unit": "guard",
        "flash_fleet": "flash",
        "keys_list": "keys",
        "keys_new": "keys",
        "keys_sign": "keys",
    }
    functions = {name for name in edgekd.__all__ if inspect.isfunction(getattr(edgekd, name))}
    assert {verbs.get(name, name) for name in functions} == set(COMMANDS)
