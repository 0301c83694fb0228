"""What quantization-aware training gives over calibration: int8 AP of the same students, before and after.

    python benchmarks/qat.py --threads 1            # trains and measures what is missing, one JSON
    python benchmarks/qat.py --seeds 0 --steps 100  # a first look
    python benchmarks/qat.py --choose               # the usual learning rate, on scenes and with a seed of their own

Synthetic X-ray scenes, the student and the teacher of example 01, one float run a seed. Of each float student two int8
networks are measured on the test scenes: by calibration (PTQ, range estimator "mse"), and
by `distill --qat` with its default budget. The same two are measured of a student that int8 spoils: the same function
in another scaling, a sixteenth of the channels that only one layer reads made 40 times as large, and what reads them
divided by it. Of seed 0 earlier states of the method had been measured on the same scenes; seeds 1 and 2 came after it
stood still. AP is measured through OpenVINO's int8 engine, and beside it in torch on the simulated network.

A killed run goes on where it was; what is in the JSON is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from machine import RESULTS, conditions, write

import edgekd
from edgekd._bundle import Bundle
from edgekd._manifest import Artifact
from edgekd._recipe import QatConfig
from edgekd._target import Quantization, load_target
from edgekd._train import adjusted
from edgekd.quantization import int8_region, quantized_graph
from edgekd.quantization.graph import FloatGraph
from edgekd.training.evaluate import evaluate
from edgekd.training.qat import calibration_images, fine_tuning, trained_on
from edgekd.training.quantized_detector import QuantizedDetector
from edgekd.training.quantized_graph import SYMMETRIC
from edgekd.training.run import make_trainer

if TYPE_CHECKING:
    from edgekd._recipe import Recipe
    from edgekd.training.models import Detector
    from edgekd.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "01_distill_and_deploy"
NAME = "qat"
SCENES = {"train": 400, "val": 40, "test": 200}
FACTOR, SHARE = 40.0, 16
TEST, OTHERS = "test", "other scenes"  # what a row was measured on
CHOSEN_FROM = (0.03, 0.1, 0.3)  # shares of the learning rate
CHOICE_SEED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=600, help="of the float run")
    parser.add_argument("--lr", type=float, help="of [qat]: share of the learning rate (default: the recipe's)")
    parser.add_argument("--share", type=float, help="of [qat]: share of the steps (default: the recipe's)")
    parser.add_argument("--choose", action="store_true", help="try learning rates instead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "qat")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = args.work / "data"
    if not (data / "test.json").exists():
        edgekd.data_synth("xray", data, **SCENES, seed=0)
    others = args.work / "others"
    if args.choose and not (others / "test.json").exists():
        edgekd.data_synth("xray", others, **{**SCENES, "train": 1, "val": 1}, seed=1)
    seeds = [CHOICE_SEED] if args.choose else [int(word) for word in args.seeds.split(",")]
    for seed in seeds:
        folder = args.work / f"seed{seed}"
        float_run(recipe(data, seed, args), folder)
        for rate in CHOSEN_FROM if args.choose else (args.lr,):
            plan = recipe(data, seed, args, rate)
            if args.choose:
                plan = plan.replace(data=dataclasses.replace(plan.data, test=str(others / "test.json")))
            for spoils in (False, True):
                measure(plan, folder, OTHERS if args.choose else TEST, spoils=spoils)


def recipe(data: Path, seed: int, args: argparse.Namespace, rate: float | None = None) -> Recipe:
    """Return the example's distillation on these scenes; `rate` is that of [qat], None the recipe's."""
    plan = adjusted(EXAMPLE / "distill.toml", seed, args.steps)
    places = {split: str(data / f"{split}.json") for split in SCENES}
    train = dataclasses.replace(plan.train, threads=args.threads)
    asked = {name: value for name, value in (("lr", rate), ("steps", args.share)) if value is not None}
    return plan.replace(data=dataclasses.replace(plan.data, **places), train=train, qat=QatConfig(**asked))


def float_run(plan: Recipe, folder: Path) -> None:
    edgekd.distill(plan, folder, device="cpu", cache=folder.parent / "cache")


def measure(plan: Recipe, folder: Path, split: str, *, spoils: bool) -> None:
    """Add what is missing of one student's rows: float, by calibration, trained on."""
    name, second = "spoilt" if spoils else "as trained", fine_tuning(plan)
    label = {"seed": plan.train.seed, "steps": plan.train.steps, "student": name, "on": split}
    trained = {**label, "network": "qat", "qat_steps": second.train.steps, "qat_lr": second.train.lr}
    wanted = [{**label, "network": "float"}, {**label, "network": "ptq"}, trained]
    missing = [each for each in wanted if not any(each.items() <= row.items() for row in known())]
    if not missing:
        return
    base, splits = make_trainer(plan, folder, torch.device("cpu"), cache=folder.parent / "cache")
    model = spoilt(base.average.model) if spoils else base.average.model
    images = calibration_images(splits["train"], plan)
    student = QuantizedDetector(model, images, SYMMETRIC)
    for row in missing:
        network: Detector = {"float": model, "ptq": student}.get(row["network"], student)
        if row is trained:
            network, row["qat_s"] = tuned(base, copy.deepcopy(student), second, folder / _folder(name, second))
        row["torch"] = figures(evaluate(network, splits["test"], plan.input, base.device))
        if isinstance(network, QuantizedDetector):
            row["openvino"] = figures(
                evaluate(Engine(network, folder, images), splits["test"], plan.input, base.device)
            )
        add(row)


def _folder(name: str, plan: Recipe) -> str:
    return f"qat-{name.replace(' ', '-')}-{plan.train.steps}-{plan.train.lr:g}"


def tuned(base: Trainer, student: QuantizedDetector, plan: Recipe, folder: Path) -> tuple[Detector, float]:
    """Train a student on as `distill --qat` does; return it, and the seconds of this process."""
    began = time.perf_counter()
    trainer = trained_on(base, student, plan, folder)
    trainer.run()
    return trainer.average.model, round(time.perf_counter() - began, 1)


def add(row: dict[str, Any]) -> None:
    about = conditions("torch", "onnxruntime", "openvino")
    write(NAME, {**about, "scenes": SCENES, "rows": [*known(), row]})
    print(json.dumps(row), flush=True)


def known() -> list[dict[str, Any]]:
    path = RESULTS / f"{NAME}.json"
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def figures(found: dict[str, Any]) -> dict[str, float]:
    return {name: round(found[name], 5) for name in ("AP", "AP50")}


def spoilt(model: Detector) -> Detector:
    """Return the same function in a scaling that int8 does badly: see above."""
    changed = copy.deepcopy(model)
    pairs = [("backbone.stem", "backbone.stage1.0")]
    parts = dict(changed.named_modules())
    pairs += [(name, name.removesuffix(".reduce") + ".conv") for name in parts if name.endswith(".reduce")]
    with torch.no_grad():
        for writer, reader in pairs:
            count = max(1, parts[writer].norm.weight.numel() // SHARE)
            parts[writer].norm.weight[:count] *= FACTOR
            parts[writer].norm.bias[:count] *= FACTOR
            parts[reader].conv.weight[:, :count] /= FACTOR
    return changed


class Engine(torch.nn.Module):
    """The int8 network as OpenVINO runs it, in a detector's clothes."""

    def __init__(self, model: QuantizedDetector, folder: Path, pixels: np.ndarray) -> None:
        super().__init__()
        graph = FloatGraph(model.portable())
        int8 = quantized_graph(graph, int8_region(graph, model.floating), model.graph.scales())
        with Bundle.read(folder / "model.bin") as held:
            bundle = held.replace(add={held.manifest.graph: model.portable()})
            target = load_target("openvino")
            built = target.build(bundle, "int8", lambda _: None, Quantization(int8, pixels))
            files = {name: f"artifacts/{name}" for name in built.files}
            artifact = Artifact(
                target="openvino", precision="int8", files=files, options=dict(built.options), tools=dict(built.tools)
            )
            manifest = dataclasses.replace(bundle.manifest, artifacts=(artifact,))
            made = bundle.replace(manifest, {files[name]: content for name, content in built.files.items()})
            self.session = target.load(made, artifact, device="cpu", threads=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return boxes and scores, as `Detector.forward`."""
        found = [self.session.infer(image[None].numpy()) for image in images]
        boxes, scores = (torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True))
        return boxes, scores


if __name__ == "__main__":
    main()
