"""`SshDevice` over a stand-in for `ssh` that runs the remote command here; and over a real sshd where one is named."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.device import LocalDevice, SshDevice, open_device
from edgekd.errors import DeviceError, HostError, UsageError

from .sshd import served

if TYPE_CHECKING:
    from collections.abc import Iterator

STAND_IN = """#!/bin/sh
for last; do :; done
case " $* " in *" unreachable "*) echo "ssh: connect to host unreachable port 22: No route to host" >&2; exit 255;; esac
exec sh -c "$last"
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshDevice:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(STAND_IN)
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return SshDevice("user@board")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12), max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_reach_the_program_as_they_are(ssh: SshDevice, words: list[str]) -> None:
    lines: list[str] = []
    code = "import sys; [print(ascii(w)) for w in sys.argv[1:]]"
    assert ssh.run([sys.executable, "-c", code, *words], listen=lines.append).code == 0
    assert lines == [ascii(word) for word in words]


def test_input_output_errors_and_status_pass(ssh: SshDevice) -> None:
    lines: list[str] = []
    done = ssh.run(["sh", "-c", "cat; echo oops >&2; exit 7"], stdin=[b"a\n", b"b"], listen=lines.append)
    assert (done.code, done.errors, lines) == (7, "oops", ["a", "b"])
    assert ssh.run(["true"], stdin=[bytes(1 << 20)] * 3).code == 0  # nobody reads it


@pytest.mark.parametrize("name", ["a file", "it's", "$(touch x)"])
def test_files_go_and_come_back_whole(ssh: SshDevice, tmp_path: Path, name: str) -> None:
    content = os.urandom(200_001)
    (tmp_path / "source").write_bytes(content)
    for device in (ssh, LocalDevice()):
        device.put(tmp_path / "source", str(tmp_path / name))
        device.get(str(tmp_path / name), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "source", name, "back"}
    with pytest.raises(DeviceError, match="cannot read"):
        ssh.get(str(tmp_path / "none"), tmp_path / "back")


def test_no_connection_says_why_and_what_to_try(ssh: SshDevice) -> None:
    with pytest.raises(DeviceError, match=r"No route to host\. Try: ssh unreachable true") as raised:
        SshDevice("unreachable").run(["true"])
    assert raised.value.exit_code == 5


def test_an_ssh_that_is_killed_is_a_broken_connection(ssh: SshDevice, tmp_path: Path) -> None:
    (tmp_path / "bin/ssh").write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(DeviceError, match="no connection, or it broke: ssh gave no reason"):
        ssh.run(["true"])


def test_a_machine_without_ssh_says_so(ssh: SshDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError, match="cannot start ssh"):
        ssh.run(["true"])


@pytest.mark.parametrize("name", ["", "-oProxyCommand=x", "a b", "a\nb"])
def test_names_that_ssh_would_misread_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no device"):
        open_device(name)


def test_local_is_this_machine() -> None:
    assert isinstance(open_device("local"), LocalDevice)
    assert open_device("jetson").name == "jetson"


def test_a_listener_that_gives_up_is_not_kept_waiting(ssh: SshDevice, tmp_path: Path) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    for device in (ssh, LocalDevice()):
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            device.run(["sh", "-c", f"echo x; sleep 2; touch {tmp_path}/mark; exec sleep 20"], listen=stop)
        assert time.monotonic() - begin < 15
    while not (tmp_path / "mark").exists():  # this machine goes on with what was begun, as a board would
        assert time.monotonic() - begin < 60
        time.sleep(0.1)


def test_of_a_copy_that_breaks_off_nothing_is_put_in_place(ssh: SshDevice, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(100_000))
    (tmp_path / "target").write_bytes(b"before")
    inner = STAND_IN.replace('exec sh -c "$last"', 'head -c 12000 | sh -c "$last"')  # a host that dies looks so
    (tmp_path / "bin/ssh").write_text(inner)
    with pytest.raises(DeviceError, match=r"cannot write .*target: only a part arrived"):
        ssh.put(tmp_path / "source", str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == b"before"


SSHD = os.environ.get("EDGEKD_TEST_SSHD", "")


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[SshDevice]:
    """This machine, over a real sshd."""
    with served(tmp_path, "/usr/sbin/sshd" if SSHD == "1" else SSHD) as device:
        yield device


@pytest.mark.skipif(not SSHD, reason="opt-in: EDGEKD_TEST_SSHD=1, or the path of an sshd")
def test_a_flash_over_a_real_sshd(loopback: SshDevice, bench: Any, tmp_path: Path) -> None:
    import edgekd

    where: dict[str, Any] = {"root": str(tmp_path / "models"), "python": sys.executable}
    quick: dict[str, Any] = {**where, "runs": 20, "max_slowdown": 100}
    first = edgekd.flash(bench.old, loopback, **quick, watch_s=0)
    assert first.sent_bytes == first.size_bytes

    class Cut(Exception):  # noqa: N818 - stands for ^C
        pass

    def cut(step: Any) -> None:
        if step.name == "watch":
            raise Cut

    with pytest.raises(Cut):  # the link breaks in the trial: the board goes on alone
        edgekd.flash(bench.new, loopback, **quick, watch_s=1, progress=cut)
    model = tmp_path / "models/model/current/model.bin"
    again = edgekd.flash(bench.new, loopback, **quick, watch_s=0)
    assert not again.changed
    assert bench.predict(model) == bench.seen["new"]
    edgekd.rollback(loopback, **where)
    assert bench.predict(model) == bench.seen["old"]
    assert edgekd.status(loopback, **where)["whole"]
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    loopback.put(source, str(tmp_path / "it's there"))
    loopback.get(str(tmp_path / "it's there"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def loose() -> set[str]:
    """What profiles leave in this machine's folder for temporary files, while they run."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("edgekd-profile-*")}


@pytest.mark.skipif(not SSHD, reason="opt-in: EDGEKD_TEST_SSHD=1, or the path of an sshd")
def test_a_profile_over_a_real_sshd_and_one_whose_link_drops(loopback: SshDevice, bench: Any) -> None:
    import edgekd

    options: dict[str, Any] = {"on": loopback, "python": sys.executable, "layers": 2}
    before = loose()
    found = edgekd.profile(bench.old, calls=150, **options)
    assert (found.device, len(found.start_s)) == ("loop", 150)
    assert found.layers
    assert loose() == before

    def cut(_share: float, _calls: int) -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "ssh":
                    child.kill()

    with pytest.raises(DeviceError, match="loop: no connection, or it broke"):
        edgekd.profile(bench.old, calls=1, seconds=120, progress=cut, **options)
    deadline = time.monotonic() + 30
    while loose() - before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert loose() == before, "the run there ended with its link, and left nothing"


@pytest.mark.skipif(not SSHD, reason="opt-in: EDGEKD_TEST_SSHD=1, or the path of an sshd")
def test_a_bootstrap_over_a_real_sshd(loopback: SshDevice, wheels: Path, bench: Any, tmp_path: Path) -> None:
    import edgekd

    base = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
    root = str(tmp_path / "it's a board")
    report = edgekd.flash(bench.old, loopback, root=root, python=base, bootstrap=wheels, watch_s=0, runs=5)
    assert report.steps[0].name == "bootstrap"
    assert edgekd.status(loopback, root=root, python=f"{root}/.runtime/current/bin/python")["whole"]
