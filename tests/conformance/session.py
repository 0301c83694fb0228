"""What every started engine does."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from edgekd._manifest import Artifact
from edgekd._receipts import QUANTIZED
from edgekd._session import LayeredSession
from edgekd._target import load_target
from edgekd._verify import TOLERANCES, check_artifact, golden_samples
from edgekd.errors import ClosedError, EdgekdError, SessionError, UsageError

from . import bundles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd._session import Session
    from edgekd._target import Target

SAME = 1e-4  # between two runs of one engine: threads may sum in another order
INT8_SHARE = 0.75  # of what int8 loses, root mean square: sums in another order round another way
GROWTH_BYTES = 12 << 20
LOADS = 20
PORTABLE = Artifact(target="reference", precision="fp32", files={})


@pytest.mark.usefixtures("needs_runtime")
class SessionCases:
    """Inherited by every target that can run."""

    TARGET: str

    @pytest.fixture
    def needs_runtime(self, target: Target) -> None:
        reason = target.probe()
        if reason is not None:
            pytest.skip(f"{self.TARGET}: {reason}")

    @pytest.fixture
    def session(self, target: Target, precision: str) -> Iterator[Session]:
        bundle, artifact = bundles.built(self.TARGET, precision)[:2]
        with contextlib.closing(target.load(bundle, artifact, threads=1)) as session:
            yield session

    def start(self, precision: str = "fp32", **options: object) -> contextlib.closing[Session]:
        """Start one more session."""
        bundle, artifact = bundles.built(self.TARGET, precision)[:2]
        return contextlib.closing(load_target(self.TARGET).load(bundle, artifact, **options))  # type: ignore[arg-type]

    def test_info_says_what_runs(self, session: Session, precision: str) -> None:
        info = session.info
        assert (info.target, info.precision) == (self.TARGET, precision)
        assert info.compute in ("fp32", "fp16", "bf16") or info.compute == precision == "int8"
        assert info.compute == "fp32" or precision != "fp32"
        assert info.device
        assert any(letter.isdigit() for letter in info.runtime), "name and version"

    @pytest.mark.parametrize("batch", [1, 2, 5])
    def test_infer_returns_the_manifests_shapes_in_float32(self, session: Session, batch: int) -> None:
        outputs = session.infer(bundles.pixels(batch))
        assert [item.shape for item in outputs] == [(batch, *spec.shape) for spec in bundles.manifest().outputs]
        assert [item.dtype for item in outputs] == [np.float32, np.float32]
        assert 0.0 <= outputs[1].min() <= outputs[1].max() <= 1.0

    def test_infer_into_the_callers_arrays_fills_and_returns_them(self, session: Session) -> None:
        pixels = bundles.pixels(2)
        before = pixels.copy()
        wanted = session.infer(pixels)
        np.testing.assert_array_equal(pixels, before)  # the next image finds its border there
        out = tuple(np.full_like(item, np.nan) for item in wanted)
        got = session.infer(pixels, out)
        for mine, returned, expected in zip(out, got, wanted, strict=True):
            assert returned is mine
            np.testing.assert_allclose(mine, expected, atol=SAME, rtol=SAME)

    def test_infer_into_arrays_that_do_not_fit_says_got_and_expected(self, session: Session) -> None:
        wanted = session.infer(bundles.pixels(1))
        for wrong in (wanted[:1], tuple(item.astype(np.float64) for item in wanted), (wanted[1], wanted[0])):
            with pytest.raises(UsageError, match="expected C-contiguous float32 outputs of shapes"):
                session.infer(bundles.pixels(1), wrong)

    def test_infer_of_a_batch_equals_its_images_one_by_one(self, session: Session) -> None:
        pixels = bundles.pixels(5)
        whole = session.infer(pixels)
        for row in range(5):
            for one, all_rows in zip(session.infer(pixels[row : row + 1]), whole, strict=True):
                np.testing.assert_allclose(one[0], all_rows[row], atol=SAME, rtol=SAME)

    def test_infer_gives_the_golden_outputs(self, precision: str) -> None:
        bundle, artifact = bundles.built(self.TARGET, precision)[:2]
        report = check_artifact(bundle, artifact, golden_samples(bundle))
        assert report.status == "passed", report
        assert report.decisions is not None
        assert report.decisions.reference > 10, "a golden set in which nothing is found shows nothing"
        assert report.score_difference is not None
        if precision in TOLERANCES:
            assert report.score_difference <= TOLERANCES[precision].score

    def test_infer_of_int8_is_the_int8_graph(self, precision: str) -> None:
        """It differs from that graph on ONNX Runtime by a fraction of what int8 itself loses.

        A target that quantizes a graph of its own loses no more against the float network than that graph does, by and
        large.
        """
        if precision not in QUANTIZED:
            return
        takes_the_graph = load_target(self.TARGET).GRAMMAR == "int8-symmetric"
        for kind in ({}, {"oriented": True}, {"anomaly": True}):
            build = bundles.built(self.TARGET, precision, **kind)
            stand_in = bundles.oracle(precision, **kind)
            off, lost = np.zeros(2), np.zeros(2)
            with (
                contextlib.closing(load_target(self.TARGET).load(build.bundle, build.artifact, threads=1)) as session,
                contextlib.closing(load_target("reference").load(stand_in, PORTABLE, threads=1)) as graph,
            ):
                for pixels, exact in golden_samples(build.bundle):
                    for which, (got, literal, known) in enumerate(
                        zip(session.infer(pixels), graph.infer(pixels), exact, strict=True)
                    ):
                        off[which] += np.square(got - (literal if takes_the_graph else known)).sum()
                        lost[which] += np.square(literal - known).sum()
            share = INT8_SHARE if takes_the_graph else 1 + INT8_SHARE
            assert (np.sqrt(off) <= share * np.sqrt(lost)).all(), (kind, np.sqrt(off), np.sqrt(lost))
            assert (lost > 0).all(), "else nothing was rounded"

    def test_infer_leaves_its_input_and_earlier_outputs_alone(self, session: Session) -> None:
        pixels = bundles.pixels(1)
        before = pixels.copy()
        first = session.infer(pixels)
        kept = [item.copy() for item in first]
        session.infer(bundles.pixels(1, seed=1))
        np.testing.assert_array_equal(pixels, before)
        for item, copy in zip(first, kept, strict=True):
            np.testing.assert_array_equal(item, copy)
            item[...] = 0.0  # the caller's own: writable

    def test_outputs_outlive_the_session(self, precision: str) -> None:
        with self.start(precision) as session:
            outputs = session.infer(bundles.pixels(1))
            kept = [item.copy() for item in outputs]
        gc.collect()
        for item, copy in zip(outputs, kept, strict=True):
            np.testing.assert_array_equal(item, copy)

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            (np.zeros((1, 3, bundles.HEIGHT, bundles.WIDTH - 1), np.float32), f"{bundles.WIDTH - 1}"),
            (np.zeros((3, bundles.HEIGHT, bundles.WIDTH), np.float32), "(3, "),
            (np.zeros((1, bundles.HEIGHT, bundles.WIDTH, 3), np.float32), ", 3)"),
            (np.zeros((0, 3, bundles.HEIGHT, bundles.WIDTH), np.float32), "(0, "),
            (np.zeros((1, 3, bundles.HEIGHT, bundles.WIDTH), np.float64), "float64"),
            (np.zeros((1, 3, bundles.HEIGHT, bundles.WIDTH), np.uint8), "uint8"),
            (np.zeros((1, 3, bundles.WIDTH, bundles.HEIGHT), np.float32).transpose(0, 1, 3, 2), "strides"),
            ([[1.0]], "list"),
        ],
        ids=["width", "no batch", "NHWC", "batch 0", "float64", "uint8", "transposed", "list"],
    )
    def test_infer_of_wrong_pixels_says_got_and_expected(self, session: Session, wrong: object, named: str) -> None:
        with pytest.raises(UsageError) as caught:
            session.infer(wrong)  # type: ignore[arg-type]
        assert named in str(caught.value)
        assert f"(B, 3, {bundles.HEIGHT}, {bundles.WIDTH})" in str(caught.value)
        assert len(session.infer(bundles.pixels(1))) == 2, "the session still serves"

    def test_layers_are_timed_apart_or_not_at_all(self, session: Session) -> None:
        if not isinstance(session, LayeredSession):
            pytest.skip(f"{session.info.runtime} tells no times by layer")
        before = session.infer(bundles.pixels(1))
        layers = session.layer_times(bundles.pixels(1), 3)
        assert len({layer.name for layer in layers}) == len(layers) > 1
        assert 0 < sum(layer.ms for layer in layers) < 1000
        assert min(layer.ms for layer in layers) > 0
        for one, other in zip(before, session.infer(bundles.pixels(1)), strict=True):
            np.testing.assert_allclose(one, other, atol=SAME)
        with pytest.raises(UsageError, match="float64"):
            session.layer_times(bundles.pixels(1).astype(np.float64), 1)  # type: ignore[arg-type]
        session.close()
        with pytest.raises(ClosedError):
            session.layer_times(bundles.pixels(1), 1)

    def test_closed_session_raises_closed_error(self) -> None:
        with self.start() as session:
            session.infer(bundles.pixels(1))
        session.close()
        with pytest.raises(ClosedError):
            session.infer(bundles.pixels(1))

    def test_two_sessions_at_once_do_not_disturb_each_other(self) -> None:
        first_pixels, second_pixels = bundles.pixels(1, seed=1), bundles.pixels(1, seed=2)
        with self.start() as first, self.start() as second:
            expected = [first.infer(first_pixels), second.infer(second_pixels)]
            for _ in range(3):
                for session, item, outputs in zip(
                    (first, second), (first_pixels, second_pixels), expected, strict=True
                ):
                    for got, wanted in zip(session.infer(item), outputs, strict=True):
                        np.testing.assert_allclose(got, wanted, atol=SAME, rtol=SAME)
            first.close()
            assert len(second.infer(second_pixels)) == 2, "closing one leaves the other"

    def test_four_threads_on_one_session_get_their_own_results(self, session: Session) -> None:
        inputs = [bundles.pixels(1 + seed % 2, seed=seed) for seed in range(4)]
        expected = [session.infer(item) for item in inputs]
        barrier = threading.Barrier(4)

        def work(index: int) -> float:
            barrier.wait()
            worst = 0.0
            for _ in range(25):
                for got, wanted in zip(session.infer(inputs[index]), expected[index], strict=True):
                    worst = max(worst, float(np.abs(got - wanted).max()))
            return worst

        with ThreadPoolExecutor(4) as pool:
            assert max(pool.map(work, range(4))) < 1e-3

    def test_close_while_another_thread_infers_ends_in_a_result_or_closed_error(self) -> None:
        bundle, artifact = bundles.built(self.TARGET, "fp32")[:2]
        session = load_target(self.TARGET).load(bundle, artifact)
        pixels, ends = bundles.pixels(2), []
        started = threading.Event()

        def work() -> None:
            try:
                for _ in range(10_000):
                    session.infer(pixels)
                    started.set()
                ends.append("never closed")
            except ClosedError:
                ends.append("closed")

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert started.wait(20)
        session.close()
        for thread in threads:
            thread.join(20)
        assert ends == ["closed", "closed"]

    def test_loading_and_closing_again_and_again_does_not_grow(self) -> None:
        process = psutil.Process()
        pixels = bundles.pixels(1)

        def cycle(times: int) -> int:
            for _ in range(times):
                with self.start(threads=1) as session:
                    session.infer(pixels)
            gc.collect()
            return int(process.memory_info().rss)

        settled = cycle(5)
        growth = cycle(LOADS) - settled
        assert growth < GROWTH_BYTES, f"{growth / LOADS / 2**20:.2f} MiB a load"

    def test_load_prints_nothing(self, precision: str, capfd: pytest.CaptureFixture[str]) -> None:
        with self.start(precision) as session:
            session.infer(bundles.pixels(1))
        captured = capfd.readouterr()
        assert (captured.out, captured.err) == ("", "")

    def test_threads_option_is_taken(self) -> None:
        expected = None
        for threads in (0, 1, 2):
            with self.start(threads=threads) as session:
                outputs = session.infer(bundles.pixels(1))
            expected = outputs if expected is None else expected
            np.testing.assert_allclose(outputs[1], expected[1], atol=SAME)

    def test_unknown_device_lists_those_that_exist(self, target: Target) -> None:
        with pytest.raises(UsageError) as caught:
            self.start(device="toaster:7")
        assert "toaster:7" in str(caught.value)
        assert all(device in str(caught.value) for device in target.DEVICES)

    @pytest.mark.parametrize("contents", [b"", b"garbage", bytes(range(256)) * 64], ids=["empty", "short", "long"])
    def test_garbage_artifact_raises_session_error(self, target: Target, contents: bytes) -> None:
        bundle, artifact = bundles.built(self.TARGET, "fp32")[:2]
        with pytest.raises(SessionError):
            target.load(bundles.with_contents(bundle, artifact, contents), artifact)

    def test_artifact_of_another_target_raises_session_error(self, target: Target) -> None:
        bundle, artifact = bundles.built(self.TARGET, "fp32")[:2]
        named = list(artifact.files.values()) or [bundle.manifest.graph]
        own = {bytes(bundle.chunk(name)) for name in named}
        foreign = {name: item for name, item in bundles.foreign_contents(self.TARGET).items() if item not in own}
        assert foreign
        for name, contents in foreign.items():
            try:
                target.load(bundles.with_contents(bundle, artifact, contents), artifact).close()
            except SessionError:
                continue
            pytest.fail(f"loaded {name}")

    def test_artifact_of_another_network_raises_session_error(self, target: Target) -> None:
        bundle, artifact = bundles.built(self.TARGET, "fp32")[:2]
        told = bundle.manifest
        outputs = tuple(dataclasses.replace(spec, shape=(spec.shape[0] + 1, spec.shape[1])) for spec in told.outputs)
        other = bundle.replace(dataclasses.replace(told, outputs=outputs, golden=()))
        with pytest.raises(SessionError) as caught, contextlib.closing(target.load(other, artifact)) as session:
            session.infer(bundles.pixels(1))
        assert str(outputs[0].shape) in str(caught.value)
        assert isinstance(caught.value, EdgekdError)
