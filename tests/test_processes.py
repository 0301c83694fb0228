"""Detectors and processes: fork, spawn, DataLoader workers, other orders of closing, a read-only root."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd._target import load_target
from edgekd.errors import BundleError, ClosedError, ImageError, SessionError, UsageError

from .conformance import bundles

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
HANGS_S = 30
HERE = ("openvino", "tflite", "reference")


@pytest.fixture(params=HERE)
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if load_target(name).probe() is not None:
        pytest.skip(f"{name} does not run here")
    return name


@pytest.fixture
def path(device: str, tmp_path: Path) -> Path:
    return bundles.written(device, "fp32", tmp_path)


PICTURE = bundles.pictures(1)[0]


def scores(detector: edgekd.Detector) -> list[float]:
    return [round(float(score), 3) for score in detector.predict(PICTURE, conf=0.01).scores]


def in_a_fork(work: Callable[[], None]) -> int:
    """Return the exit status of a child that does some work; -14: it hung."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest's own would wait for Python, which waits for the engine
        signal.alarm(HANGS_S)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_child_of_a_fork_opens_its_own_engine_while_the_parent_is_at_work(path: Path, device: str) -> None:
    with edgekd.load(path, device=device) as detector:
        expected = scores(detector)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                detector.predict(PICTURE)

        def child() -> None:
            if device == "openvino":
                with pytest.raises(SessionError, match=r"used before this process was forked.*spawn"):
                    detector.predict(PICTURE)
                detector.close()
                return
            assert scores(detector) == expected
            assert [round(float(s), 3) for s in detector.submit(PICTURE, conf=0.01).result(HANGS_S).scores] == expected
            detector.close()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        detector.submit(PICTURE).result(HANGS_S)
        try:
            assert [in_a_fork(child) for _ in range(6)] == [0] * 6
            assert in_a_fork(detector.close) == 0, "closed without a call of its own"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert scores(detector) == expected, "the parent goes on"


def test_child_of_a_fork_of_a_closed_detector_says_so(path: Path, device: str) -> None:
    detector = edgekd.load(path, device=device)
    detector.close()

    def child() -> None:
        with pytest.raises(ClosedError):
            detector.predict(PICTURE)

    assert in_a_fork(child) == 0


def _elsewhere(detector: edgekd.Detector) -> list[float]:
    return scores(detector)


@pytest.mark.parametrize("way", ["spawn", "forkserver", "fork"])
def test_pool_of_processes_takes_a_detector(path: Path, device: str, way: str) -> None:
    if (device, way) == ("openvino", "fork"):
        pytest.skip("OpenVINO does not survive a fork, and says so")
    with edgekd.load(path, device=device, threads=1) as detector:
        expected = scores(detector)
        with multiprocessing.get_context(way).Pool(2) as pool:
            assert pool.map(_elsewhere, [detector] * 3) == [expected] * 3


class Pictures:
    """A data set that labels its pictures with a detector."""

    def __init__(self, detector: edgekd.Detector) -> None:
        self.detector = detector

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return float(self.detector.predict(bundles.pictures(4)[index], conf=0.01).scores.sum())


def _refused(detector: edgekd.Detector) -> None:
    detector.predict(PICTURE.astype(np.float32))


def test_error_in_another_process_is_the_same_error_here(path: Path, device: str) -> None:
    with edgekd.load(path, device=device, threads=1) as detector:
        with pytest.raises(ImageError) as here:
            _refused(detector)
        with (
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
            pytest.raises(ImageError) as elsewhere,
        ):
            pool.submit(_refused, detector).result()
    assert str(elsewhere.value) == str(here.value)


_kept: list[edgekd.Detector] = []


def _keep(detector: edgekd.Detector) -> None:
    _kept.append(detector)


def _by_the_kept(picture: np.ndarray) -> tuple[int, list[float]]:
    (detector,) = _kept
    future = detector.submit(picture, conf=0.01)
    ((_, streamed),) = detector.stream([picture], conf=0.01)
    assert np.array_equal(streamed.scores, future.result().scores)
    return os.getpid(), scores(detector)


def test_process_opens_its_detector_once_and_outlives_that_of_the_parent(path: Path, device: str) -> None:
    detector = edgekd.load(path, device=device, threads=1)
    expected = scores(detector)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=_keep, initargs=(detector,)) as pool:
        assert pool.submit(_by_the_kept, PICTURE).result()[1] == expected
        detector.close()
        found = list(pool.map(_by_the_kept, [PICTURE] * 4))
    assert [item for _, item in found] == [expected] * 4
    assert os.getpid() not in {pid for pid, _ in found}


def test_pool_in_the_docs_works(path: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
    (block,) = [item for item in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "ProcessPool" in item]
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    call = f"print(len(label({str(path)!r}, [{str(tmp_path / 'picture.png')!r}] * 3)))"
    script = tmp_path / "labelling.py"
    script.write_text(f"{block}\nif __name__ == '__main__':\n    {call}\n")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "3\n"), ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_workers_of_a_data_loader_take_a_detector(path: Path, device: str, way: str) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    if (device, way) == ("openvino", "fork"):
        pytest.skip("OpenVINO does not survive a fork, and says so")
    with edgekd.load(path, device=device, threads=1) as detector:
        data: Any = Pictures(detector)
        expected = [data[index] for index in range(4)]
        loader = torch_data.DataLoader(
            data, batch_size=2, num_workers=2, multiprocessing_context=way, persistent_workers=True
        )
        for _ in range(2):  # epochs; the workers keep their detectors
            found = [float(value) for batch in loader for value in batch]
            np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_pickled_detector_is_the_same_file_opened_with_the_same_words(path: Path, device: str) -> None:
    with edgekd.load(path, device=device, threads=1) as detector:
        with pickle.loads(pickle.dumps(detector)) as other, copy.copy(detector) as third:
            assert (other.info, third.info) == (detector.info, detector.info)
            assert scores(other) == scores(third) == scores(detector)
        held = pickle.dumps(detector)
    bundles.portable(oriented=True).write(path)
    with pytest.raises(BundleError, match="another bundle than when the detector was pickled"):
        pickle.loads(held)


def test_detector_that_was_not_loaded_from_a_file_cannot_be_pickled() -> None:
    bundle, artifact = bundles.built("reference", "fp32")[:2]
    session = load_target("reference").load(bundle, artifact)
    with (
        edgekd.Detector(bundle.manifest, session, info=None) as detector,  # type: ignore[arg-type]
        pytest.raises(UsageError, match=r"only a detector that edgekd\.load opened from a file"),
    ):
        pickle.dumps(detector)


def test_detectors_close_in_any_order(path: Path, device: str) -> None:
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        detectors = [edgekd.load(path, device=device) for _ in order]
        streams = [detector.stream([PICTURE] * 50) for detector in detectors]
        for stream in streams:
            next(stream)
        for index in order:
            detectors[index].close()
        for stream in streams:
            with pytest.raises(ClosedError):
                list(stream)  # what was found before comes out, then why there is no more


def test_everything_is_dropped_without_close_and_the_process_ends(path: Path, device: str) -> None:
    code = (
        "import sys, edgekd, numpy as np\n"
        "d = edgekd.load(sys.argv[1], device=sys.argv[2]); p = np.zeros((90, 120, 3), np.uint8)\n"
        "futures = [d.submit(p) for _ in range(20)]; s = d.stream([p] * 9); next(s)\n"
        "print(len(futures))"
    )
    words = [sys.executable, "-c", code, str(path), device]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "20\n", "")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here")
def test_read_only_root_with_a_temporary_folder_is_enough(path: Path, device: str, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = (
        "import os, sys, edgekd, numpy as np\n"
        "try: open(os.path.join(os.path.dirname(sys.argv[1]), 'x'), 'w'); sys.exit('it can be written to')\n"
        "except OSError: pass\n"
        "with edgekd.load(sys.argv[1], device=sys.argv[2], cache=os.path.dirname(sys.argv[1]) + '/cache') as d:\n"
        "    print(d.submit(np.zeros((90, 120, 3), np.uint8)).result().image_size)"
    )
    script = (
        f"mount --bind {temporary} {temporary} && mount -o remount,bind,ro / && "
        f"(mount -o remount,bind,ro {tmp_path.parent} 2>/dev/null; true) && "
        'exec "$0" -c "$1" "$2" "$3"'
    )
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, sys.executable, code]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    ran = subprocess.run(
        [*words, str(path), device], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    if "unshare:" in ran.stderr or "mount:" in ran.stderr or "it can be written to" in ran.stderr:
        pytest.skip(f"no read-only root can be made here: {ran.stderr.strip()[-200:]}")
    assert (ran.returncode, ran.stdout) == (0, "(90, 120)\n"), ran.stderr
