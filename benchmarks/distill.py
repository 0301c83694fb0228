"""Training evidence: a student alone and the same student distilled by each method, same budget, several seeds.

    python benchmarks/distill.py run                               # trains what is missing, one JSON a run
    python benchmarks/distill.py run --size full --minutes 9        # the same on a GPU, in slices of under ten minutes
    python benchmarks/distill.py tune --pairs retina               # each method's weight, on validation images
    python benchmarks/distill.py ablate                            # parts of FAD and modes of XFKD
    python benchmarks/distill.py table                             # writes the tables of docs/results.md
    python benchmarks/distill.py ship                              # the synthetic teacher, for example 01

A run that has its JSON is skipped; a killed one resumes from its checkpoint; two processes side by side share the work.
Teachers are trained once, where something is distilled, and kept in the work folder; what they show is cached there,
by data set and seed, for all methods. Every figure is of the last checkpoint on the test split, which nothing was
chosen on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_oriented import PAIRS, measure_oriented, oriented_sets, prepare
from distill_settings import (
    ABLATIONS,
    FULL,
    LONGER,
    METHODS,
    ROOT,
    SMALL,
    TUNE_SEED,
    TUNE_SHARE,
    TUNED,
    TUNED_ON,
    Pair,
    upright_sets,
)
from machine import RESULTS, conditions, write
from runs import alone, claimed, log_rows, named, trained_s

import edgekd
from edgekd._recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distill_settings import DataSet

SIZES = {"small": {**SMALL, **PAIRS}, "full": FULL}
USUAL = {"small": "retina,mobile", "full": "r101-r50,yolov4"}  # pairs of a run that names none
DATA = ("bccd", "sixray", "xray", "ucas", "aerial")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One pair on one data set, in one work folder."""

    pair_name: str
    data_name: str
    size: str
    work: Path
    threads: int

    @property
    def pair(self) -> Pair:
        """Networks and budgets."""
        return SIZES[self.size][self.pair_name]

    @property
    def data(self) -> DataSet:
        """Splits."""
        return {**upright_sets(self.work), **oriented_sets(self.work)}[self.data_name]

    @property
    def label(self) -> str:
        """Beginning of the names of result files."""
        return f"{'' if self.size == 'small' else self.size + '-'}{self.pair_name}-{self.data_name}"

    def folder(self, name: str) -> Path:
        """Return the folder of one run."""
        return self.work / self.size / f"{self.pair_name}-{self.data_name}-{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("teacher", "run", "tune", "ablate", "table", "ship"))
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--pairs", help=f"default: {', '.join(f'{pairs} ({size})' for size, pairs in USUAL.items())}")
    parser.add_argument("--data", default=",".join(DATA), help="those that a pair has a budget for")
    parser.add_argument("--methods", help="default: those that a pair is compared by")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "evidence")
    args = parser.parse_args()
    if args.command == "table":
        from distill_table import write_tables

        write_tables(RESULTS, ROOT / "docs" / "results.md")
        return
    if args.command == "ship":
        cell = Cell("tiny", "xray", "small", args.work, args.threads)
        ship(cell.folder("teacher") / "student.safetensors", ROOT / "examples" / "01_distill_and_deploy")
        return
    try:
        work(args)
    except edgekd.errors.EdgekdError as error:
        raise SystemExit(str(error)) from error


def work(args: argparse.Namespace) -> None:
    """Do the runs that are missing, until the minutes are over."""
    end = time.monotonic() + 60 * args.minutes
    for cell, seed, method, entries in jobs(args):
        if time.monotonic() > end:
            return
        if args.command != "teacher" and recorded(cell, method, seed, entries, tuning=args.command == "tune"):
            continue  # before its teacher is trained, whose file it would replace
        provide(cell)
        alone = args.command != "teacher" and not entries  # nobody teaches it
        with claimed(cell.folder("teacher")) as free:
            if free and not alone:
                train_teacher(cell)
        taught = args.command != "teacher" and cell.folder("teacher").joinpath("student.safetensors").exists()
        if alone or taught:
            with claimed(cell.folder(f"{method}-seed{seed}")) as free:
                if free:
                    train_student(cell, method, entries, seed, tuning=args.command == "tune")


def jobs(args: argparse.Namespace) -> Iterator[tuple[Cell, int, str, list[dict[str, Any]]]]:
    """Yield cell, seed, label and [[distill]] entries of every run, seed by seed so that what is done is balanced."""
    pairs = named("--pairs", args.pairs or USUAL[args.size], SIZES[args.size])
    cells = [
        Cell(pair, data, args.size, args.work, args.threads)
        for data in named("--data", args.data, DATA)
        for pair in pairs
        if data in SIZES[args.size][pair].student_steps
    ]
    if args.command == "tune":
        for cell in [each for each in cells if each.data_name not in TUNED_ON]:
            for name in methods_of(cell, args):
                for factor in TUNED[cell.data_name] if METHODS[name] else (1.0,):
                    yield cell, TUNE_SEED, f"tune-{name}-x{factor:g}", scaled(METHODS[name], factor)
        return
    if args.command == "teacher":
        for cell in cells:
            yield cell, 0, "teacher", []
        return
    for seed in (int(item) for item in args.seeds.split(",")):
        for cell in cells:
            methods = {name: METHODS[name] for name in methods_of(cell, args)}
            if args.command == "ablate":
                methods = {"baseline": [], **ABLATIONS}
            for name, entries in methods.items():
                yield cell, seed, name, scaled(entries, best_factor(cell, name, entries))
            if args.command == "run" and seed == 0:
                yield cell, seed, LONGER, []


def methods_of(cell: Cell, args: argparse.Namespace) -> Sequence[str]:
    """Return the names asked for, or those of the pair."""
    return named("--methods", args.methods, METHODS) if args.methods else cell.pair.methods


def recorded(cell: Cell, method: str, seed: int, entries: list[dict[str, Any]], *, tuning: bool) -> bool:
    """Say whether a run has its JSON; one of other weights or options ends the script, lest a table mix them."""
    file = RESULTS / f"{label_of(cell, method, seed, tuning=tuning)}.json"
    if not file.exists():
        return False
    made = json.loads(file.read_text())["recipe"]["distill"]
    then, now = ([(e["method"], e.get("weight", 1.0), e.get("options", {})) for e in each] for each in (made, entries))
    if then != now:
        raise SystemExit(f"{file} was made with {then}, now it is {now}: move it away to run it again")
    return True


def label_of(cell: Cell, method: str, seed: int, *, tuning: bool) -> str:
    """Return the name of a student's JSON below results/."""
    return f"{'tuning' if tuning else 'distill'}/{cell.label}-{method}-seed{seed}"


def best_factor(cell: Cell, name: str, entries: list[dict[str, Any]]) -> float:
    """Return the factor of a method's weight that did best on the validation images.

    Of the pair itself where it was tuned on this data, else of the one it names. A part in an ablation, or a variant
    that was not tuned, weighs what the whole method does.
    """
    if not entries or entries[0]["method"] not in METHODS or cell.size != "small" or cell.pair.untuned:
        return 1.0
    data, method = TUNED_ON.get(cell.data_name, cell.data_name), entries[0]["method"]
    for label, pair in itertools.product((name, method), (cell.pair_name, cell.pair.tuned_by)):
        files = sorted((RESULTS / "tuning").glob(f"{pair}-{data}-tune-{label}-x*.json"))
        if files:
            missing = [x for x in TUNED[data] if not any(file.match(f"*-x{x:g}-seed*") for file in files)]
            if missing:
                raise SystemExit(f"{pair} on {data}: {label} is not tuned at {missing} yet: run `tune` to its end")
            best = max((json.loads(file.read_text()) for file in files), key=lambda row: row["metrics"]["AP"])
            return float(best["method"].rsplit("-x", 1)[1])
    tune = f"python benchmarks/distill.py tune --pairs {cell.pair.tuned_by} --data {data}"
    raise SystemExit(f"{method} has not been tuned on {data}: {tune}")


def scaled(entries: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """Return the entries with their weights multiplied."""
    return [{**entry, "weight": entry.get("weight", 1.0) * factor} for entry in entries]


def provide(cell: Cell) -> None:
    """Write what is missing of synthetic scenes and of tiles; the teacher's scenes come from a seed of their own."""
    with alone(cell.work / "data" / cell.data_name):  # another process may be drawing or cutting them
        if cell.data.tile is not None:
            prepare(cell.data_name, cell.work)
        if cell.data_name != "xray":
            return
        for file, counts, seed in ((cell.data.train, (600, 100, 150), 0), (cell.data.teacher_train, (3000, 1, 1), 1)):
            if not file.exists():
                train, val, test = counts
                edgekd.data_synth("xray", file.parent, train=train, val=val, test=test, seed=seed)


def recipe(cell: Cell, train: dict[str, Any], pixels: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    """Return a recipe over this cell's data; `parts` are its model and distill sections."""
    data, pair = cell.data, cell.pair
    base = {"batch": pair.batch, "amp": True, "threads": cell.threads, "checkpoint_every": 250}
    return Recipe.from_dict(
        {
            "name": cell.label,
            "data": {"train": str(data.train), "val": str(data.val), "test": str(data.test)},
            "input": {"height": pair.size, "width": pair.size, **(pixels or {})},
            **parts,
            "train": {**base, **train},
        }
    )


def teacher_section(cell: Cell) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Return the teacher's model section, its pixel normalisation and its learning rate."""
    section = dict(cell.pair.teachers.get(cell.data_name, cell.pair.teacher))
    rate = section.pop("lr", cell.pair.teacher_lr)
    pixels = section.pop("input", {})
    return section, pixels, rate


def train_teacher(cell: Cell) -> None:
    """Train the teacher once and keep its result."""
    section, pixels, rate = teacher_section(cell)
    steps = cell.pair.teacher_steps[cell.data_name]
    train = {"steps": steps, "lr": rate, "eval_every": steps // 6}
    plan = recipe(cell, train, pixels, student=section, augment=cell.pair.teacher_augment)
    plan = plan.replace(data=dataclasses.replace(plan.data, train=str(cell.data.teacher_train)))
    measure(f"distill/{cell.label}-teacher", cell, "teacher", 0, plan, cell.folder("teacher"))


def train_student(cell: Cell, method: str, entries: list[dict[str, Any]], seed: int, *, tuning: bool) -> None:
    """Train one student and keep its result."""
    steps = cell.pair.student_steps[cell.data_name]
    steps = int(TUNE_SHARE[cell.data_name] * steps) if tuning else 2 * steps if method == LONGER else steps
    train = {"steps": steps, "lr": cell.pair.student_lr, "seed": seed, "eval_every": steps // 5}
    head = cell.pair.heads.get(method)
    student = {**cell.pair.student, **({"head": head} if head else {})}
    plan = recipe(cell, train, student=student, distill=entries, augment=cell.pair.augment)
    if entries:
        weights = cell.folder("teacher") / "student.safetensors"
        section, pixels, _ = teacher_section(cell)
        size = {"height": cell.pair.size, "width": cell.pair.size, **pixels}
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        taught = {**section, "input": size, "weights": str(weights), "sha256": digest, "stages": "all"}
        plan = Recipe.from_dict({**plan.to_dict(), "teacher": taught})
    folder = cell.folder(f"{method}-seed{seed}")
    cache = cell.work / "cache" / f"{cell.label}-{seed}"
    measure(label_of(cell, method, seed, tuning=tuning), cell, method, seed, plan, folder, cache)


def measure(
    label: str, cell: Cell, method: str, seed: int, plan: Recipe, folder: Path, cache: Path | None = None
) -> None:
    """Train, measure the bundle on the test split (tuning: val), and write the run's JSON; skip what is there."""
    if (RESULTS / f"{label}.json").exists() and (method != "teacher" or (folder / "student.safetensors").exists()):
        return
    print(f"== {label}", file=sys.stderr)
    if plan.distill:
        edgekd.distill(plan, folder, cache=cache)
    else:
        edgekd.train(plan, folder)
    split = "val" if label.startswith("tuning/") else "test"
    if split == "test" and cell.data.tile is not None:
        found = measure_oriented(folder / "model.bin", cell.data)
    else:
        found = edgekd.evaluate(folder / "model.bin", getattr(cell.data, split)).metrics
    rows = log_rows(folder / "metrics.jsonl")
    seconds = trained_s(rows)
    row = {
        "pair": cell.pair_name,
        "data": cell.data_name,
        "method": method,
        "seed": seed,
        "size": cell.size,
        "pair_note": cell.pair.note,
        "note": cell.data.note,
        "split": f"{split}, last checkpoint",
        "metrics": found,
        "validation_curve": [
            {k: r[f"val.{k}"] for k in ("AP", "AP50")} | {"step": r["step"]} for r in rows if "val.AP" in r
        ],
        "last_log_row": next(row for row in reversed(rows) if "loss" in row),
        "last_observed": {k: v for r in rows for k, v in r.items() if k.startswith(("observed.", "neck."))},
        "warnings": [row["warning"] for row in rows if "warning" in row],
        "train_s": round(seconds, 1),
        "recipe": plan.to_dict(),
        **conditions("torch"),
    }
    write(label, row)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    print(f"{label}: AP {100 * found['AP']:.1f}, AP50 {100 * found['AP50']:.1f}, {seconds:.0f} s", file=sys.stderr)


def ship(weights: Path, example: Path) -> None:
    """Write a trained detector as float16 beside the example's recipes; loading widens it again."""
    from edgekd.training.checkpoint import read_meta, read_tensors, write_tensors

    halves = {name: item.half() if item.is_floating_point() else item for name, item in read_tensors(weights).items()}
    write_tensors(example / "teacher.safetensors", halves, read_meta(weights))
    print(f"wrote {example / 'teacher.safetensors'}")


if __name__ == "__main__":
    main()
