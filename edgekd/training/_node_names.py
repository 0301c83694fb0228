"""Names of the portable graph's nodes: the module that each comes from, so that a profile can say where time goes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

SCOPES = "pkg.torch.onnx.name_scopes"  # torch's exporter leaves the modules around each node there
WEIGHTED = ("Conv", "ConvTranspose")


def name_by_module(graph: onnx.GraphProto) -> None:
    """Name nodes and values in place: "/backbone/stem/Conv", "/backbone/stem/Conv_output_0", as older exporters do.

    Runtimes keep one or the other through their fusions. Inputs, outputs and weights of the graph keep their names.
    """
    kept = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
    weights = {item.name for item in graph.initializer}
    used: set[str] = set()
    renamed: dict[str, str] = {}
    for node in graph.node:
        path = [*(part for part in _module(node, weights).split(".") if part), node.op_type]
        name = stem = "/" + "/".join(path)
        count = 0
        while name in used:
            count += 1
            name = f"{stem}_{count}"
        used.add(name)
        node.name = name
        for index, output in enumerate(node.output):
            if output and output not in kept:
                renamed[output] = f"{name}_output_{index}"
    for node in graph.node:
        node.input[:] = [renamed.get(item, item) for item in node.input]
        node.output[:] = [renamed.get(item, item) for item in node.output]
    del graph.value_info[:]  # shapes by the old names; they are inferred again


def _module(node: onnx.NodeProto, weights: set[str]) -> str:
    """Return the dotted path of the module of a node; empty: of the network itself.

    A BatchNorm that was folded leaves its own scope on the convolution, whose weights know better.
    """
    if node.op_type in WEIGHTED and node.input[1] in weights and node.input[1].endswith(".weight"):
        return str(node.input[1]).removesuffix(".weight")
    scopes = next((item.value for item in node.metadata_props if item.key == SCOPES), "[]")
    try:
        listed = [str(item) for item in ast.literal_eval(scopes)]
    except (ValueError, SyntaxError):  # another version of torch writes it otherwise: names are a comfort
        return ""
    return next((item for item in reversed(listed[:-1]) if item), "")
