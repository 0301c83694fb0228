"""What may be asked, and the forms of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._detections import Detections


def _supervision(found: Detections) -> dict[str, Any]:
    """Return the fields of a `supervision.Detections`, as lists."""
    data: dict[str, Any] = {"class_name": found.names}
    if found.oriented:
        data["xyxyxyxy"] = found.corners.tolist()
    return {
        "xyxy": found.xyxy.tolist(),
        "confidence": found.scores.tolist(),
        "class_id": found.labels.tolist(),
        "data": data,
    }


def _edgekd(found: Detections) -> dict[str, Any]:
    return found.to_dict()


def _coco(found: Detections) -> list[dict[str, Any]]:
    return found.to_coco()


FORMS: dict[str, Callable[[Detections], Any]] = {"edgekd": _edgekd, "supervision": _supervision, "coco": _coco}


def _classes(text: str) -> list[int | str]:
    return [int(item) if item.strip().isdigit() else item.strip() for item in text.split(",")]


def _flag(text: str) -> bool:
    return {"1": True, "true": True, "0": False, "false": False}[text]


OPTIONS: dict[str, Callable[[str], Any]] = {
    "conf": float, "iou": float, "max_det": int, "classes": _classes, "tile": int, "overlap": int, "ungated": _flag,
}  # fmt: skip


def options_of(query: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the form of the answer, and the options of `predict`, of a query such as `form=coco&conf=0.4`.

    Raises:
        UsageError: an unknown option, or a value that is none.
    """
    form = query.get("form", "edgekd")
    if form not in FORMS:
        raise UsageError(f"form should be one of {', '.join(FORMS)}; got {form!r}")
    options = {}
    for name, text in query.items():
        if name == "form":
            continue
        if name not in OPTIONS:
            raise UsageError(f"no option {name!r}; possible: form, {', '.join(OPTIONS)}")
        options[name] = _value(name, text)
    return form, options


def _value(name: str, text: str) -> Any:
    try:
        return OPTIONS[name](text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{name}={text} is no value for {name}") from error
