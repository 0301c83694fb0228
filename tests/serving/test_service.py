"""The service: forms, refusals, load shedding, and that what it accepted is answered."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFile

import edgekd
from edgekd.cli.main import main
from edgekd.errors import HostError, UsageError

from ..conformance import bundles
from .conftest import PICTURE, Running, png

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgekd._detections import Detections

TOKEN = "a-token-of-some-length"
LIMIT_S = 60


def test_picture_in_our_form_in_that_of_supervision_and_in_that_of_coco(serving: Callable[..., Running]) -> None:
    supervision = pytest.importorskip("supervision")
    running = serving()
    expected = running.detector.predict(PICTURE, conf=0.1)
    ours = running.ask("POST", "/predict?conf=0.1", PICTURE)
    assert ours.status == 200
    assert ours.headers["content-type"] == "application/json"
    told = ours.json()
    assert {key: told[key] for key in told if key != "timings_ms"} == {
        key: value for key, value in expected.to_dict().items() if key != "timings_ms"
    }
    theirs = running.ask("POST", "/predict?conf=0.1&form=supervision", PICTURE).json()
    supervised = expected.to_supervision()
    np.testing.assert_allclose(theirs["xyxy"], supervised.xyxy)
    np.testing.assert_allclose(theirs["confidence"], supervised.confidence)
    assert theirs["class_id"] == supervised.class_id.tolist()
    assert theirs["data"]["class_name"] == list(supervised.data["class_name"])
    again = supervision.Detections(
        xyxy=np.float32(theirs["xyxy"]), confidence=np.float32(theirs["confidence"]),
        class_id=np.int64(theirs["class_id"]),
        data={key: np.array(values) for key, values in theirs["data"].items()},
    )  # fmt: skip
    assert again == supervised, "what a client makes of it is what it would have had here"
    assert running.ask("POST", "/predict?conf=0.1&form=coco", PICTURE).json() == expected.to_coco()


def test_oriented_and_anomaly_bundles_are_served(serving: Callable[..., Running]) -> None:
    oriented = serving(oriented=True)
    told = oriented.ask("POST", "/predict?conf=0.1&form=supervision", PICTURE).json()
    assert np.shape(told["data"]["xyxyxyxy"]) == (len(told["xyxy"]), 4, 2)
    inspector = serving(anomaly=True)
    assert inspector.ask("POST", "/predict?ungated=1", PICTURE).json()["score01"] is not None
    refused = inspector.ask("POST", "/predict?conf=0.4", PICTURE)
    assert (refused.status, "conf: for detectors only" in refused.json()["error"]) == (400, True)
    assert "edgekd_score_count 1\n" in inspector.ask("GET", "/metrics").body.decode()


@pytest.mark.parametrize(
    ("query", "body", "headers", "status", "said"),
    [
        ("", b"no picture", {}, 400, "no image in a format that is read: BMP, GIF, JPEG, PNG"),
        ("", b"", {}, 400, "curl --data-binary"),
        ("?conf=2", PICTURE, {}, 400, "conf should be between 0 and 1"),
        ("?conf=x", PICTURE, {}, 400, "conf=x is no value for conf"),
        ("?ungated=2", PICTURE, {}, 400, "ungated=2 is no value"),
        ("?form=xml", PICTURE, {}, 400, "form should be one of edgekd, supervision, coco; got 'xml'"),
        ("?cnf=1", PICTURE, {}, 400, "no option 'cnf'; possible: form, conf"),
        ("?max_det=99999999999999999999", PICTURE, {}, 400, "max_det should be a whole number from 1 to 2147483647"),
        ("?tile=1", PICTURE, {}, 400, "into 10800 windows, of at most 4096"),
        ("?classes=spanner", PICTURE, {}, 400, "no class 'spanner'"),
        ("", PICTURE, {"Content_Type": "multipart/form-data; boundary=x"}, 415, "send the picture itself"),
        ("", PICTURE, {"Origin": "http://evil.example"}, 403, "http://evil.example may not ask"),
        ("", PICTURE, {"Host": "rebound.example:80"}, 403, "answers to localhost, not to 'rebound.example:80'"),
    ],
)  # fmt: skip
def test_refusals_say_why(
    serving: Callable[..., Running], query: str, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    running = serving()
    answer = running.ask("POST", f"/predict{query}", body, **headers)
    assert (answer.status, said in answer.json()["error"]) == (status, True), answer.json()
    assert running.ask("POST", "/predict", PICTURE).status == 200, "it serves on"
    assert running.service.accepted == running.service.answered


def test_bodies_are_limited_whether_they_say_their_length_or_not(serving: Callable[..., Running]) -> None:
    running = serving(max_body_bytes=len(PICTURE))
    assert running.ask("POST", "/predict", PICTURE).status == 200
    answer = running.ask("POST", "/predict", PICTURE + b"x")
    assert (answer.status, "may have" in answer.json()["error"]) == (413, True)
    assert running.service.rejected == 1
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=LIMIT_S)
    connection.request("POST", "/predict", iter([PICTURE, b"x" * 1000]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 413
    connection.close()


def test_pixels_are_counted_before_they_are_decoded(
    serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serving(max_pixels=120 * 90).ask("POST", "/predict", PICTURE).status == 200
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    running = serving(max_pixels=10_000)
    answer = running.ask("POST", "/predict", PICTURE)
    said = "has 0.0108 megapixels, of at most 0.01; send it smaller, or serve with --max-megapixels"
    assert (answer.status, said in answer.json()["error"]) == (413, True), answer.json()
    assert running.service.accepted == running.service.answered == 1


def test_body_that_does_not_come_gives_its_place_away(
    serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd._serving import app

    monkeypatch.setattr(app, "READ_S", 0.2)
    running = serving(queue=1)
    with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        assert b" 408 " in slow.recv(1000)
    assert running.ask("POST", "/predict", PICTURE).status == 200


def test_caller_that_goes_away_amid_its_body_is_counted_apart_and_silently(
    serving: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    running = serving()
    with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as caller:
        caller.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc")
        end = time.monotonic() + LIMIT_S
        while not running.service.accepted and time.monotonic() < end:
            time.sleep(0.01)
    while not running.service.answered and time.monotonic() < end:
        time.sleep(0.01)
    page = running.ask("GET", "/metrics").body.decode()
    assert 'edgekd_answers_total{status="499"} 1\n' in page
    assert 'status="500"' not in page
    running.stop()
    assert "Exception" not in caplog.text


def test_token_opens_what_the_page_and_health_do_not_need(serving: Callable[..., Running]) -> None:
    running = serving(token=TOKEN)
    for path in ("/", "/overlay.js", "/overlay.css", "/healthz"):
        assert running.ask("GET", path).status == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        for method, path in (("POST", "/predict"), ("GET", "/metrics")):
            answer = running.ask(method, path, PICTURE if method == "POST" else None, **headers)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    allowed = {"Authorization": f"Bearer {TOKEN}", "Host": "board.local:8000"}
    assert running.ask("POST", "/predict", PICTURE, **allowed).status == 200
    assert running.ask("GET", "/metrics", **allowed).status == 200


class Slow:
    """Holds every predict of a detector until it may go on."""

    def __init__(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go = threading.Event()
        real = running.detector.predict

        def predict(*words: Any, **options: Any) -> Detections:
            assert self.may_go.wait(LIMIT_S)
            found: Detections = real(*words, **options)
            return found

        monkeypatch.setattr(running.detector, "predict", predict)


def test_more_than_it_can_take_is_shed_at_once_with_when_to_come_back(
    serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serving(queue=4)
    slow = Slow(running, monkeypatch)
    with ThreadPoolExecutor(4) as threads:
        held = [threads.submit(running.ask, "POST", "/predict", PICTURE) for _ in range(4)]
        end = time.monotonic() + LIMIT_S
        while running.service.under_way < 4 and time.monotonic() < end:
            time.sleep(0.01)
        start = time.monotonic()
        shed = [running.ask("POST", "/predict", PICTURE) for _ in range(5)]
        assert time.monotonic() - start < 10
        assert {answer.status for answer in shed} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)
        page = running.ask("GET", "/metrics").body.decode()
        assert 'edgekd_rejected_total{reason="busy"} 5\n' in page
        assert "edgekd_under_way 4\n" in page
        slow.may_go.set()
        assert [future.result(LIMIT_S).status for future in held] == [200] * 4
    assert running.ask("POST", "/predict", PICTURE).status == 200


def test_who_is_turned_away_amid_a_large_body_still_gets_the_answer(serving: Callable[..., Running]) -> None:
    running = serving(queue=1, max_body_bytes=16 << 20)
    running.service.accepted += 1  # as if somebody's picture were under way
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (12 << 20)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as caller:
            caller.sendall(head + bytes(12 << 20))
            assert b" 503 " in caller.recv(1000)
    running.service.answered += 1


def test_picture_that_takes_too_long_gets_504(serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    running = serving(timeout_ms=100)
    slow = Slow(running, monkeypatch)
    answer = running.ask("POST", "/predict", PICTURE)
    assert (answer.status, "timeout_ms=100" in answer.json()["error"]) == (504, True)
    slow.may_go.set()


def test_service_that_ends_answers_what_it_accepted_and_nothing_more(
    serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serving()
    slow = Slow(running, monkeypatch)
    with ThreadPoolExecutor(6) as threads:
        held = [threads.submit(running.ask, "POST", "/predict", PICTURE) for _ in range(6)]
        end = time.monotonic() + LIMIT_S
        while running.service.under_way < 6 and time.monotonic() < end:
            time.sleep(0.01)
        running.server.should_exit = True
        while not running.service.draining and time.monotonic() < end:
            time.sleep(0.01)
        with pytest.raises(OSError):  # refused, or cut before it was read
            running.ask("POST", "/predict", PICTURE)
        slow.may_go.set()
        assert [future.result(LIMIT_S).status for future in held] == [200] * 6
    running.thread.join(LIMIT_S)
    assert not running.thread.is_alive()
    assert running.service.accepted == running.service.answered == 6


def test_sigterm_amid_load_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    path = tmp_path / "model.bin"
    bundles.portable().write(path)
    command = [sys.executable, "-m", "edgekd.cli.main", "serve", str(path), "--port", "0", "--queue", "8", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["url"].rsplit(":", 1)[1].strip("/"))
        answers: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
                try:
                    connection.request("POST", "/predict", PICTURE)
                    answers.append(connection.getresponse().status)
                except OSError:
                    stop.set()
                finally:
                    connection.close()

        callers = [threading.Thread(target=ask) for _ in range(16)]
        for caller in callers:
            caller.start()
        end = time.monotonic() + LIMIT_S
        while len(answers) < 60 and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=LIMIT_S)
        stop.set()
        for caller in callers:
            caller.join(LIMIT_S)
    assert (process.returncode, errors.count("Traceback")) == (0, 0), errors
    report = json.loads(output.splitlines()[-1])
    assert report["accepted"] == report["answered"] == sum(status == 200 for status in answers)
    assert set(answers) <= {200, 503}


def test_metrics_are_what_prometheus_reads(serving: Callable[..., Running]) -> None:
    running = serving()
    found = [running.ask("POST", "/predict?conf=0.01", PICTURE).json() for _ in range(3)]
    running.ask("POST", "/predict", b"no picture")
    answer = running.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert len(samples) == sum(not line.startswith("#") for line in lines), "every sample once"
    assert samples['edgekd_answers_total{status="200"}'] == "3"
    assert samples['edgekd_answers_total{status="400"}'] == "1"
    assert samples["edgekd_answer_seconds_count"] == samples['edgekd_answer_seconds_bucket{le="+Inf"}'] == "4"
    assert samples['edgekd_stage_seconds_count{stage="infer"}'] == "3"
    assert int(samples["edgekd_score_count"]) == sum(len(item["scores"]) for item in found)
    assert float(samples["edgekd_score_sum"]) == pytest.approx(sum(sum(item["scores"]) for item in found), rel=1e-5)
    assert samples["edgekd_queue_depth"] == "0"
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    bare = {key.partition("{")[0] for key in samples}
    assert all(any(key.removesuffix(end) in names for end in ("", "_bucket", "_sum", "_count")) for key in bare)


def test_drift_is_zero_for_the_same_scores_and_large_for_others() -> None:
    pytest.importorskip("starlette")
    from edgekd._serving.metrics import Drift

    rng = np.random.default_rng(0)
    same, other, early = Drift(200), Drift(200), Drift(200)
    for score in rng.uniform(0, 1, 400):
        same.add(score)
        other.add(score)
    for score in rng.uniform(0.2, 0.4, 200):
        other.add(score)
    early.add(0.5)
    assert early.index() is None
    index, moved = same.index(), other.index()
    assert index is not None
    assert moved is not None
    assert index < 0.2 < 1 < moved
    assert Drift(1)._shares([1.0])[9] == max(Drift(1)._shares([1.0])), "a score of 1 is in the last bin"


def test_serve_refuses_what_would_be_open_to_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    path = tmp_path / "model.bin"
    bundles.portable().write(path)
    for host in ("0.0.0.0", "::", "192.168.0.7", "board.local"):
        with pytest.raises(UsageError, match=r"others can reach .* so a token is needed"):
            edgekd.serve(path, host=host)
    with pytest.raises(UsageError, match="a token should be 16 or more"):
        edgekd.serve(path, token="short")
    assert main(["serve", str(path), "--token-file", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert said == f"edgekd serve: cannot read the token file {tmp_path}/none: No such file or directory\n"
    with pytest.raises(UsageError, match="queue should be at least 1 and finite, got 0"):
        edgekd.serve(path, queue=0)
    for wrong in (float("inf"), float("nan"), 0.5):
        with pytest.raises(UsageError, match=f"timeout_ms should be at least 1 and finite, got {wrong}"):
            edgekd.serve(path, timeout_ms=wrong)


@pytest.mark.parametrize("option", ["--timeout-ms", "--max-body-mb", "--max-megapixels"])
def test_limits_that_are_no_numbers_are_refused_on_the_command_line(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "model.bin", option, "inf"])
    assert ended.value.code == 2
    assert f"argument {option}: invalid number value: 'inf'" in capsys.readouterr().err


def test_address_that_is_taken_is_said(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: .*--port 0"):
            edgekd.serve(tmp_path / "model.bin", port=port)


def test_large_pictures_are_turned_upright_as_files_are(serving: Callable[..., Running], tmp_path: Path) -> None:
    running = serving()
    turned = Image.fromarray(bundles.pictures(1)[0])
    exif = turned.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    told = running.ask("POST", "/predict", (tmp_path / "turned.jpg").read_bytes()).json()
    assert told["image_size"] == [120, 90]
    assert running.ask("POST", "/predict", png(np.zeros((1, 1, 3), np.uint8))).status == 200
