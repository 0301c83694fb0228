"""`export`: what the fleet managers' own programs say of it, and what it does on a board."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgekd
from edgekd import _export_files
from edgekd._export_files import cpio
from edgekd.cli.main import main
from edgekd.errors import BuildError, UsageError

from .conformance import bundles

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    bundles.portable().write("model.bin")
    return tmp_path / "model.bin"


@pytest.fixture
def signer(tmp_path: Path) -> dict[str, str]:
    """A certificate for signatures and its key."""
    need("openssl")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "30"]
    command += ["-addext", "extendedKeyUsage=emailProtection", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt install {program}")


def here(tmp_path: Path) -> dict[str, Any]:
    """Options under which this machine is the board."""
    return {"root": str(tmp_path / "board"), "python": sys.executable, "name": "cam"}


def ran(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_mender_takes_the_artifact_and_its_module_flashes_and_goes_back(model: Path, tmp_path: Path) -> None:
    need("mender-artifact")
    where = here(tmp_path)
    log = tmp_path / "restarts"
    restart = f"readlink {where['root']}/cam/current >> {log}"
    options: dict[str, Any] = {"compatible": "orin", "max_slowdown": 100, **where}
    report = edgekd.export(model, "mender", "out", version="cam-2", restart=restart, **options)
    assert report.artifact == "out/cam-2.mender"
    assert "validated successfully" in ran("mender-artifact", "validate", report.artifact)
    about = ran("mender-artifact", "read", report.artifact)
    assert "Name: cam-2" in about
    assert "Compatible devices: '[orin]'" in about
    assert "Type:   edgekd" in about
    assert "rootfs-image.edgekd.version: cam-2" in about

    # As Mender's client calls the module: the payload lies in files/, notes go to tmp/.
    work = tmp_path / "work"
    (work / "files").mkdir(parents=True)
    (work / "tmp").mkdir()
    shutil.copy(model, work / "files/model.bin")
    shutil.copy("out/edgekd.sh", work / "files/edgekd.sh")

    def state(name: str) -> str:
        return ran(str(tmp_path / "out/edgekd"), name, str(work))

    assert state("SupportsRollback") == "Yes\n"
    assert state("NeedsArtifactReboot") == "No\n"
    state("ArtifactInstall")
    now = edgekd.status("local", **where)
    assert now["whole"]
    assert state("ArtifactCommit") == state("Cleanup") == ""
    changed = bundles.portable().replace(add={"notes.txt": b"other"})
    changed.write(work / "files/model.bin")
    state("ArtifactInstall")
    assert edgekd.status("local", **where)["in_service"]["release"] != now["in_service"]["release"]
    (work / "files/edgekd.sh").unlink()  # Mender may have cleaned up by then
    state("ArtifactRollback")
    assert edgekd.status("local", **where)["in_service"]["release"] == now["in_service"]["release"]
    restarts = log.read_text().split()
    assert len(restarts) == 3
    assert restarts[0] == restarts[2] == f"releases/{now['in_service']['release']}", "the service has the old one again"
    shutil.copy("out/edgekd.sh", work / "files/edgekd.sh")
    model.write_bytes(b"no bundle")
    shutil.copy(model, work / "files/model.bin")
    failed = subprocess.run([tmp_path / "out/edgekd", "ArtifactInstall", work], capture_output=True, check=False)
    assert failed.returncode == 2
    state("ArtifactRollback")  # nothing was changed, so nothing goes back
    assert edgekd.status("local", **where)["in_service"]["release"] == now["in_service"]["release"]


def test_one_mender_module_serves_every_model_and_every_option(model: Path) -> None:
    for name, limit in (("cam1", 20), ("cam2", 5)):
        edgekd.export(model, "mender", name, compatible="orin", name=name, max_p99_ms=limit)
    assert Path("cam1/edgekd").read_bytes() == Path("cam2/edgekd").read_bytes()
    assert "--name cam2" in Path("cam2/edgekd.sh").read_text()
    assert "--max-p99 5" in Path("cam2/edgekd.sh").read_text()
    assert "-f model.bin -f edgekd.sh" in Path("cam2/build.sh").read_text()


@pytest.mark.slow
def test_rauc_verifies_the_bundle_and_its_handler_flashes(model: Path, tmp_path: Path, signer: dict[str, str]) -> None:
    need("rauc")
    need("unsquashfs")
    where = here(tmp_path)
    report = edgekd.export(model, "rauc", "out", compatible="orin-cam", version="cam-2", **where, **signer)
    assert report.artifact == "out/cam-2.raucb"
    keyring = f"--keyring={signer['cert']}"
    about = ran("rauc", keyring, "info", report.artifact)
    assert "'orin-cam'" in about
    assert "'cam-2'" in about
    ran("rauc", keyring, "extract", report.artifact, "mounted")
    mounted = tmp_path / "mounted"
    ran(str(mounted / "install.sh"), env={**os.environ, "RAUC_BUNDLE_MOUNT_POINT": str(mounted)})
    assert edgekd.status("local", **where)["whole"]
    again = edgekd.export(model, "rauc", "out", compatible="orin-cam", version="cam-2", **where, **signer)
    assert again.artifact == report.artifact, "made anew"


@pytest.mark.slow
def test_swupdate_checks_the_image_and_installs_it(model: Path, tmp_path: Path, signer: dict[str, str]) -> None:
    need("swupdate")
    if not os.environ.get("EDGEKD_TEST_SWUPDATE"):  # its exit code after "successful" is a race, and it may never end
        pytest.skip("opt-in: EDGEKD_TEST_SWUPDATE=1")
    where = here(tmp_path)
    report = edgekd.export(model, "swupdate", "out", compatible="orin-cam:1.0", version="cam-2", **where, **signer)
    assert report.artifact == "out/cam-2.swu"
    base = ["swupdate", "-k", signer["cert"], "-H", "orin-cam:1.0", "-i", report.artifact]
    ran(*base, "-c")
    refused = subprocess.run([*base[:4], "orin-cam:2.0", *base[5:], "-c"], capture_output=True, check=False)
    assert refused.returncode != 0, "another revision of the board"
    if os.geteuid():
        pytest.skip("swupdate installs as root only; the image was checked")
    ran(*base, "-M", "-m")
    assert edgekd.status("local", **where)["whole"]
    assert not Path("/tmp/cam-2.bin").exists()


def test_an_unsigned_image_has_its_parts_in_order(model: Path) -> None:
    report = edgekd.export(model, "swupdate", "out", compatible="orin:1.0", version="v1")
    content = Path(report.artifact or "").read_bytes()
    assert content.startswith(b"070702")
    assert len(content) % 512 == 0
    assert content.index(b"sw-description\0") < content.index(b"model.bin\0") < content.index(b"install.sh\0")
    assert report.commands == ()


def test_cpio_is_what_the_format_says() -> None:
    """Header of thirteen hexadecimal fields, names and contents padded to four bytes, checksums of the bytes."""
    found = cpio({"ab": b"xyz", "c": b""})
    assert found[:6] == b"070702"
    fields = [int(found[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
    assert (fields[1], fields[6], fields[11], fields[12]) == (0o100644, 3, 3, ord("x") + ord("y") + ord("z"))
    assert found[110:113] == b"ab\0"
    assert found[116:119] == b"xyz"
    assert found[120:126] == b"070702"
    assert b"TRAILER!!!\0" in found


def test_versions_follow_the_contents(model: Path) -> None:
    report = edgekd.export(model, "swupdate", "out", compatible="orin:1.0")
    assert report.version == f"conformance-{bundles.portable().digest[:12]}"
    json.dumps(report.to_dict())


def test_commands_are_kept_where_the_program_is_missing(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[[str], str | None] = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: None if name == "mender-artifact" else real(name))
    words = ["export", "model.bin", "--to", "mender", "--out", "out", "--compatible", "orin", "--restart", "it's one"]
    assert main(words) == 4
    shown = capsys.readouterr().out
    assert "run: mender-artifact write module-image -T edgekd" in shown
    assert "mender-artifact is not installed: apt install mender-artifact, then give the command again" in shown
    assert Path("out/build.sh").read_text().startswith("#!/bin/sh\n")
    assert os.access("out/build.sh", os.X_OK)
    assert "--restart 'it'\"'\"'s one'" in Path("out/edgekd.sh").read_text()


def test_a_program_that_fails_is_quoted(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mender-artifact").write_text("#!/bin/sh\necho 'no such type' >&2\nexit 1\n")
    (tmp_path / "bin/mender-artifact").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(BuildError, match=r"(?s)mender-artifact failed: no such type.*it was: mender-artifact write"):
        edgekd.export(model, "mender", "out", compatible="orin")
    shutil.rmtree(tmp_path / "bin")
    edgekd.export(model, "mender", "out", compatible="orin")  # the folder is the export's all the same


def test_files_of_the_users_own_are_not_overwritten(model: Path) -> None:
    before = model.read_bytes()
    for folder in (".", "model.bin"):
        with pytest.raises(UsageError, match=r"is no empty folder, and no export lies in it: name another with --out"):
            edgekd.export(model, "swupdate", folder, compatible="orin:1.0")
    assert model.read_bytes() == before
    Path("empty").mkdir()
    for _ in range(2):
        report = edgekd.export(model, "swupdate", "empty", compatible="orin:1.0")
        assert json.loads(Path("empty/export.json").read_text())["artifact"] == report.artifact


def test_options_of_the_other_kind_are_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "model.bin", "--out", "out", "--to"]
    assert main([*words, "swupdate", "--compatible", "orin:1.0", "--conf", "0.9"]) == 2
    assert "--to swupdate has no --conf: that is chosen on the board, at every predict" in capsys.readouterr().err
    assert main([*words, "tensorrt", "--root", "/models"]) == 2
    assert "--to tensorrt has no --root: an engine is one file" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("balena", {}, "no fleet manager 'balena'; possible: mender, rauc, swupdate"),
        ("mender", {"compatible": "a b"}, "--compatible a b: mender expects something like jetson-orin-nano"),
        ("swupdate", {"compatible": "orin"}, "expects something like jetson-orin-nano:1.0"),
        ("swupdate", {"compatible": "cam.v2:1.0"}, "expects something like jetson-orin-nano:1.0"),
        ("swupdate", {"compatible": "4cam:1.0"}, "expects something like jetson-orin-nano:1.0"),
        ("mender", {"name": "../evil name"}, "'../evil name' cannot name a model on a board"),
        ("mender", {"root": "relative/dir"}, "--root should be an absolute path on the board, or begin with ~"),
        ("mender", {"version": "../x"}, "--artifact-version ../x"),
        ("mender", {"cert": "cert.pem"}, "Mender signs by a key alone"),
        ("mender", {"key": "none.pem"}, "there is no file none.pem"),
        ("mender", {"max_slowdown": float("nan")}, "max_slowdown should be a number from 0 on, got nan"),
        ("rauc", {}, "RAUC bundles are always signed"),
        ("swupdate", {"compatible": "orin:1", "key": "key.pem"}, "a signature needs both"),
    ],
)
def test_what_a_fleet_manager_would_not_take_is_refused(
    model: Path, to: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace("..", r"\.\.")):
        edgekd.export(model, to, "out", **{"compatible": "orin", **options})
    assert not Path("out").exists()


def test_every_kind_has_its_example() -> None:
    from edgekd._export import COMPATIBLE, EXAMPLE

    assert set(_export_files.KINDS) == set(COMPATIBLE) == set(EXAMPLE)
