"""What every target does when it is asked what it can, and to build."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd._target import Target, load_target
from edgekd.errors import BuildError, TargetUnavailableError

from . import bundles

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]

BARE = """
import sys, importlib.machinery
allowed = set(sys.stdlib_module_names) | {"edgekd", "numpy", "cffi", "_cffi_backend"}
found = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return found(name, path, target) if name.partition(".")[0] in allowed else None
importlib.machinery.PathFinder.find_spec = find_spec
from edgekd._target import load_target
target = load_target(sys.argv[1])
print(target.probe())
print("then")
print(target.probe_build())
"""
"""A machine with edgekd, NumPy and cffi, and no vendor's package."""


def install_commands(text: str) -> list[str]:
    """Return what the text tells to pip-install, after checking that every extra it names exists."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    commands = re.findall(r"pip install ('[^']+'|[\w.-]+)", text)
    for command in commands:
        named = re.fullmatch(r"'edgekd\[([\w,-]+)\]'", command)
        assert named is None or set(named[1].split(",")) <= set(extras), f"{command}: no such extra"
    return commands


class DescriptionCases:
    """Inherited by every target: what its module says, without any vendor's package."""

    TARGET: str

    @pytest.fixture
    def target(self) -> Target:
        return load_target(self.TARGET)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "precision" in metafunc.fixturenames:
            metafunc.parametrize("precision", load_target(self.TARGET).PRECISIONS, scope="class")

    def test_module_says_what_it_offers(self, target: Target) -> None:
        assert "fp32" in target.PRECISIONS
        assert target.DEVICES
        assert all(device == device.lower() for device in target.DEVICES)
        assert isinstance(target.PORTABLE, bool)
        assert isinstance(target.RANK, int)

    def test_importing_the_module_loads_no_vendor_package(self) -> None:
        code = f"import sys; from edgekd._target import load_target; load_target({self.TARGET!r}); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        top = {name.partition(".")[0] for name in done.stdout.split()}
        allowed = sys.stdlib_module_names | {"edgekd", "numpy", "cffi", "_cffi_backend"}
        assert {name for name in top - allowed if not name.startswith("_")} == set()

    def test_probe_on_a_bare_machine_says_what_to_type(self) -> None:
        done = subprocess.run([sys.executable, "-c", BARE, self.TARGET], capture_output=True, text=True, check=True)
        run, build = done.stdout.split("then\n")
        assert install_commands(build), build
        self.check_bare_probe(run)

    def check_bare_probe(self, reason: str) -> None:
        assert install_commands(reason), reason


@pytest.mark.usefixtures("needs_builder")
class BuildCases(DescriptionCases):
    """Inherited by every target: building."""

    @pytest.fixture
    def needs_builder(self, target: Target) -> None:
        reason = target.probe_build()
        if reason is not None:
            pytest.skip(f"{self.TARGET}: {reason}")

    def test_build_gives_files_of_this_precision(self, precision: str) -> None:
        artifact = bundles.built(self.TARGET, precision).artifact
        assert artifact.tools, "the manifest should say which tools made the artifact"
        assert all(artifact.tools.values())
        for name in artifact.files:
            assert "/" not in name

    def test_build_in_half_precision_is_smaller(self, target: Target) -> None:
        if "fp16" not in target.PRECISIONS:
            pytest.skip(f"{self.TARGET} has no fp16")
        sizes = {}
        for precision in ("fp32", "fp16"):
            bundle, artifact = bundles.built(self.TARGET, precision)[:2]
            weights = max(
                artifact.files, key=lambda name: len(bundle.file(artifact, name)) * (not name.endswith("xml"))
            )
            sizes[precision] = len(bundle.file(artifact, weights))
        assert sizes["fp16"] < 0.85 * sizes["fp32"], sizes

    def test_build_tells_its_progress(self, precision: str) -> None:
        lines = bundles.built(self.TARGET, precision).progress
        assert lines
        assert all("\n" not in line for line in lines)

    def test_build_prints_nothing(self, precision: str) -> None:
        assert bundles.built(self.TARGET, precision).printed == b""

    def test_build_of_an_oriented_detector_gives_files_of_the_same_names(self, precision: str) -> None:
        artifact = bundles.built(self.TARGET, precision, oriented=True).artifact
        assert set(artifact.files) == set(bundles.built(self.TARGET, precision).artifact.files)

    def test_build_of_an_anomaly_network_gives_files_of_the_same_names(self, precision: str) -> None:
        artifact = bundles.built(self.TARGET, precision, anomaly=True).artifact
        assert set(artifact.files) == set(bundles.built(self.TARGET, precision).artifact.files)

    def test_build_of_garbage_raises_build_error(self, target: Target) -> None:
        broken = bundles.portable().replace(add={"graph.onnx": b"garbage" * 100})
        with pytest.raises(BuildError) as caught:
            target.build(broken, "fp32", lambda _: None)
        assert str(caught.value)


class BuildOnlyCases(BuildCases):
    """Inherited by a target that cannot run in this version: everything about building, and the refusal to run."""

    def check_bare_probe(self, reason: str) -> None:
        assert reason.strip() != "None"

    def test_load_says_why_it_cannot_run(self, target: Target, precision: str) -> None:
        bundle, artifact = bundles.built(self.TARGET, precision)[:2]
        reason = target.probe()
        assert reason
        with pytest.raises(TargetUnavailableError) as caught:
            target.load(bundle, artifact)
        assert reason in str(caught.value)
        assert caught.value.exit_code == 4
