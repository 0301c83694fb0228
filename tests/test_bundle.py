"""`Bundle`: what is written is read, mapped, atomic and deterministic."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgekd._bundle import Bundle
from edgekd._container import LINE, PAGE
from edgekd._manifest import Artifact, GoldenImage, InputSpec, Manifest, OutputSpec
from edgekd.errors import BundleError, ClosedError, CorruptBundleError

BIG = np.random.default_rng(0).bytes(PAGE + 1000)


def make_manifest(**changes: object) -> Manifest:
    manifest = Manifest(
        name="toy",
        task="detect",
        classes=("gun", "knife"),
        input=InputSpec(height=32, width=48),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(6, 4), layout="xyxy"),
            OutputSpec(name="scores", kind="scores", shape=(6, 2), activation="sigmoid"),
        ),
        artifacts=(Artifact(target="openvino", precision="fp32", files={"model.bin": "openvino/fp32/model.bin"}),),
    )
    return dataclasses.replace(manifest, **changes)


def make_bundle(**changes: object) -> Bundle:
    chunks = {"graph.onnx": b"graph", "openvino/fp32/model.bin": BIG}
    return Bundle.create(make_manifest(**changes), chunks)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_bundle().write(tmp_path / "model.bin")
    return tmp_path / "model.bin"


def test_read_gives_back_what_was_written(path: Path) -> None:
    with Bundle.read(path) as bundle:
        assert bundle.manifest == make_manifest()
        assert bundle.names() == ("graph.onnx", "manifest.json", "openvino/fp32/model.bin")
        assert bundle.graph() == b"graph"
        assert bytes(bundle.file(bundle.manifest.artifacts[0], "model.bin")) == BIG
        assert bundle.path == path
        assert bundle.digest == make_bundle().digest
        assert bundle.signature is None


def test_equal_contents_give_equal_bytes_whatever_the_order(tmp_path: Path) -> None:
    chunks = {"graph.onnx": b"graph", "openvino/fp32/model.bin": BIG, "a": b"1", "z": b"2"}
    Bundle.create(make_manifest(), chunks).write(tmp_path / "one")
    Bundle.create(make_manifest(), dict(reversed(chunks.items()))).write(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_known_bundle_keeps_its_bytes_across_versions() -> None:
    """If this fails the format has changed: raise its version, and keep reading the old one."""
    assert make_bundle().digest == "68b9a9efc0b3fd6f20ed16df8eca4928213b393e2270809df37644cb7d5988ee"


def test_large_chunks_are_page_aligned_and_small_ones_packed(path: Path) -> None:
    make_bundle().replace(add={"page": b"p" * PAGE, "nearly": b"n" * (PAGE - 1)}).write(path)
    data = path.read_bytes()
    with Bundle.read(path) as bundle:
        for chunk in bundle.toc:
            assert chunk.alignment == (PAGE if chunk.length >= PAGE else LINE)
            assert chunk.offset % chunk.alignment == 0
            assert hashlib.sha256(data[chunk.offset : chunk.offset + chunk.length]).hexdigest() == chunk.sha256
    assert len(data) == 5 * PAGE  # small ones and "nearly" in the first two pages, then BIG in two, then "page"


def test_identical_chunks_are_stored_once(tmp_path: Path) -> None:
    copies = {f"copy{index}": BIG for index in range(20)}
    make_bundle().replace(add=copies).write(tmp_path / "model.bin")
    assert (tmp_path / "model.bin").stat().st_size < 3 * PAGE
    with Bundle.read(tmp_path / "model.bin") as bundle:
        assert bytes(bundle.chunk("copy7")) == BIG
        assert len({chunk.offset for chunk in bundle.toc if chunk.length == len(BIG)}) == 1


def test_empty_chunks_are_chunks(tmp_path: Path) -> None:
    make_bundle().replace(add={"empty": b"", "z": b""}).write(tmp_path / "model.bin")
    with Bundle.read(tmp_path / "model.bin") as bundle:
        assert len(bundle.chunk("empty")) == len(bundle.chunk("z")) == 0


def test_read_maps_instead_of_copying(tmp_path: Path) -> None:
    """40 MB of chunks cost next to no private memory."""
    make_bundle().replace(add={"large": bytes(40 << 20)}).write(tmp_path / "model.bin")
    code = f"""
import re
from edgekd._bundle import Bundle
def private():
    return sum(int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) for key in ("RssAnon",))
before = private()
bundle = Bundle.read({str(tmp_path / "model.bin")!r})
assert len(bundle.chunk("large")) == 40 << 20
print(private() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    grown_kib = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown_kib < 4096


def test_chunks_are_read_only(path: Path) -> None:
    with Bundle.read(path) as bundle:
        assert bundle.chunk("graph.onnx").readonly
        with pytest.raises(TypeError):
            bundle.chunk("graph.onnx")[0] = 0


def test_bytes_given_to_create_can_change_afterwards() -> None:
    content = bytearray(b"graph")
    bundle = make_bundle().replace(add={"graph.onnx": content})
    content[:] = b"XXXXX"
    assert bundle.graph() == b"graph"


def test_replace_adds_changes_and_drops_chunks(path: Path) -> None:
    with Bundle.read(path) as bundle:
        changed = bundle.replace(
            dataclasses.replace(bundle.manifest, artifacts=(), name="other"),
            {"graph.onnx": b"better", "new": b"x"},
            ["openvino/fp32/model.bin"],
        )
        assert bundle.graph() == b"graph"
    assert changed.names() == ("graph.onnx", "manifest.json", "new")
    assert changed.graph() == b"better"
    assert changed.manifest.name == "other"
    assert changed.path is None


def test_replaced_bundle_outlives_the_file_it_came_from(path: Path, tmp_path: Path) -> None:
    with Bundle.read(path) as bundle:
        changed = bundle.replace(dataclasses.replace(bundle.manifest, name="other"))
    changed.write(path)
    with Bundle.read(path) as again:
        assert again.manifest.name == "other"
        assert bytes(again.chunk("openvino/fp32/model.bin")) == BIG


def test_replace_hashes_only_what_is_new(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    real = hashlib.sha256
    with Bundle.read(path) as bundle:
        monkeypatch.setattr(hashlib, "sha256", lambda data: hashed.append(len(data)) or real(data))
        bundle.replace(add={"new": b"x"})
    assert len(BIG) not in hashed
    assert 1 in hashed


@pytest.mark.parametrize("name", ["manifest.json", "missing"])
def test_replace_cannot_drop_the_manifest_or_what_is_not_there(name: str) -> None:
    with pytest.raises(BundleError, match=f"{name}.*droppable: graph.onnx"):
        make_bundle().replace(drop=[name])


def test_dropping_a_chunk_that_is_needed_names_who_needs_it() -> None:
    with pytest.raises(BundleError, match=r"artifacts\[0\]\.files\.model\.bin names the chunk 'openvino"):
        make_bundle().replace(drop=["openvino/fp32/model.bin"])


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../b", "a//b", "a/", "", ".hidden", "a\\b", "C:x", "a\0b", "a\nb", "ä", "a/./b",
     "x" * 129, "a．b", "con\u202e", "a b", "trailing."],
)  # fmt: skip
def test_names_that_could_leave_a_folder_are_refused(name: str) -> None:
    with pytest.raises(BundleError, match="no chunk name"):
        make_bundle().replace(add={name: b""})


def test_names_that_differ_only_in_case_are_refused() -> None:
    with pytest.raises(BundleError, match="differ only in case"):
        make_bundle().replace(add={"GRAPH.onnx": b""})


def test_too_many_chunks_are_refused() -> None:
    with pytest.raises(BundleError, match="4099 chunks"):
        make_bundle().replace(add={f"c{index}": b"" for index in range(4096)})


def test_manifest_chunk_cannot_be_given() -> None:
    with pytest.raises(BundleError, match="written from the manifest"):
        Bundle.create(make_manifest(artifacts=()), {"graph.onnx": b"", "manifest.json": b"{}"})


def test_golden_outputs_of_the_wrong_length_are_refused() -> None:
    golden = (GoldenImage(image="i", outputs=("b", "s")),)
    with pytest.raises(BundleError, match=r"b should hold boxes \(6, 4\) float32: 96 bytes, got 95"):
        make_bundle().replace(make_manifest(golden=golden), {"i": b"", "b": bytes(95), "s": bytes(48)})


def test_missing_chunk_and_file_list_what_there_is(path: Path) -> None:
    with Bundle.read(path) as bundle:
        with pytest.raises(BundleError, match=r"no chunk 'nope'.*graph\.onnx"):
            bundle.chunk("nope")
        with pytest.raises(BundleError, match=r"openvino fp32 has no file 'x'; it has: model\.bin"):
            bundle.file(bundle.manifest.artifacts[0], "x")


def test_closed_bundle_says_so(path: Path) -> None:
    bundle = Bundle.read(path)
    bundle.close()
    bundle.close()
    for use in (bundle.graph, bundle.replace, lambda: bundle.write(path), lambda: bundle.sign(bytes(32))):
        with pytest.raises(ClosedError, match="closed; read it again"):
            use()


def test_views_outlive_close_and_then_free_the_mapping(path: Path) -> None:
    bundle = Bundle.read(path)
    view = bundle.chunk("openvino/fp32/model.bin")
    array = np.frombuffer(view, np.uint8)
    bundle.close()
    assert bytes(view) == BIG
    assert array[5] == BIG[5]
    del view, array
    gc.collect()
    if Path("/proc/self/maps").exists():
        assert str(path) not in Path("/proc/self/maps").read_text()


def test_repeated_read_and_failure_keep_no_file_open(path: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    bad = tmp_path / "bad.bin"
    bad.write_bytes(path.read_bytes()[:-1])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        Bundle.read(path).close()
        with pytest.raises(CorruptBundleError):
            Bundle.read(bad)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_write_over_an_open_bundle_leaves_its_views_alone(path: Path) -> None:
    with Bundle.read(path) as bundle:
        bundle.replace(add={"openvino/fp32/model.bin": bytes(PAGE)}).write(path)
        assert bytes(bundle.chunk("openvino/fp32/model.bin")) == BIG
    with Bundle.read(path) as bundle:
        assert bytes(bundle.chunk("openvino/fp32/model.bin")) == bytes(PAGE)


def test_write_syncs_the_file_then_renames_then_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    make_bundle().write(tmp_path / "model.bin")
    assert steps == ["file", "rename", "folder"]


def test_failed_write_keeps_the_old_file_and_leaves_no_litter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left on device"):
        make_bundle(name="other").write(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_killed_write_leaves_the_old_file_whole(path: Path) -> None:
    """A process that writes in a loop is killed at any moment: whoever opens the path finds a sound bundle."""
    code = f"""
from edgekd._bundle import Bundle
bundle = Bundle.read({str(path)!r})
print("ready", flush=True)
while True:
    bundle.write({str(path)!r})
"""
    for delay in (0.0, 0.003, 0.011, 0.05):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer.stdout as ready:
            assert ready.readline() == b"ready\n"
            time.sleep(delay)
            writer.kill()
            writer.wait()
        Bundle.read(path).close()


def test_write_follows_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "current.bin"
    link.symlink_to(path)
    make_bundle(name="other").write(link)
    assert link.is_symlink()
    with Bundle.read(path) as bundle:
        assert bundle.manifest.name == "other"


def test_written_file_has_the_mode_of_any_new_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_into_a_missing_folder_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot write .*No such file"):
        make_bundle().write(tmp_path / "missing" / "model.bin")


def test_threads_read_one_bundle_at_once(path: Path) -> None:
    errors: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(50):
                with Bundle.read(path) as bundle:
                    assert bytes(bundle.chunk("openvino/fp32/model.bin")) == BIG
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_reading_20_mb_takes_less_than_the_goal(tmp_path: Path) -> None:
    """Goal: 50 ms on a quiet machine (about 18 measured). In CPU time, best of five, so that a busy one passes too."""
    make_bundle().replace(add={"large": np.random.default_rng(1).bytes(20 << 20)}).write(tmp_path / "model.bin")
    times = []
    for _ in range(5):
        start = time.process_time()
        Bundle.read(tmp_path / "model.bin").close()
        times.append(time.process_time() - start)
    assert min(times) < 0.1
