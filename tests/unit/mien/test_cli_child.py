"""Services as child processes: they speak, they are stopped, they never outlive their parent."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mien.cli.child import Child
from mien.cli.stop import stop_on_signals

WAIT_S = 60.0

PROGRAMS = {
    "talker": """
        import json, sys
        print("not JSON")
        print(json.dumps({"event": "hello", "words": sys.argv[1:]}))
        print("[1, 2]")
        print("for the log", file=sys.stderr)
        sys.exit(4)
    """,
    "complainer": """
        import sys
        print("some noise", file=sys.stderr)
        sys.exit("mien-x: there is no camera 7")
    """,
    "stubborn": """
        import json, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(json.dumps({"event": "ready"}))
        while True:
            signal.pause()
    """,
    "flood": """
        import json
        for number in range(20_000):
            print(json.dumps({"number": number}))
    """,
    "parent": """
        import json, signal, sys
        from pathlib import Path
        from mien.cli.child import Child
        with Child("grandchild", "waiter", [], Path(sys.argv[1])) as child:
            child.next_event(60)
            print(json.dumps({"event": "started", "pid": child.process.pid}))
            signal.pause()
    """,
    "waiter": """
        import json, signal
        print(json.dumps({"event": "ready"}))
        signal.pause()
    """,
}


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        lines = [line.removeprefix(" " * 8) for line in text.strip("\n").splitlines()]
        (folder / f"{name}.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_child_gets_its_arguments_and_its_objects_are_read(tmp_path: Path) -> None:
    with Child("talker", "talker", ["--a", "b c"], tmp_path / "log") as child:
        assert child.next_event(WAIT_S) == {"event": "hello", "words": ["--a", "b c"]}
        assert child.next_event(WAIT_S) is None
        assert child.next_event(WAIT_S) is None
        assert child.wait(WAIT_S) == 4
    assert child.last_words() == f"{child.log} ends with:\n    for the log"


def test_the_message_of_a_child_is_found_in_its_log(tmp_path: Path) -> None:
    with Child("mien-x", "complainer", [], tmp_path / "log") as child:
        child.wait(WAIT_S)
    assert child.last_words() == "mien-x: there is no camera 7"


def test_waiting_for_a_silent_child_has_a_limit(tmp_path: Path) -> None:
    with Child("waiter", "waiter", [], tmp_path / "log") as child:
        child.next_event(WAIT_S)
        with pytest.raises(TimeoutError):
            child.next_event(0.01)


def test_leaving_the_context_ends_the_child(tmp_path: Path) -> None:
    with Child("waiter", "waiter", [], tmp_path / "log") as child:
        child.next_event(WAIT_S)
    assert child.process.returncode == -signal.SIGTERM


def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    with Child("stubborn", "stubborn", [], tmp_path / "log") as child:
        child.next_event(WAIT_S)
        assert child.stop(grace_s=0.05) == -signal.SIGKILL


def test_a_child_that_says_more_than_is_read_can_be_stopped(tmp_path: Path) -> None:
    with Child("flood", "flood", [], tmp_path / "log") as child:
        assert child.next_event(WAIT_S) == {"number": 0}
    assert child.process.returncode is not None


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with Child("parent", "parent", [str(tmp_path / "inner")], tmp_path / "log") as parent:
        started = parent.next_event(WAIT_S)
        assert started is not None, parent.last_words()
        handle = os.pidfd_open(started["pid"])
        parent.process.kill()
        readable, _, _ = select.select([handle], [], [], WAIT_S)  # when the process has ended
        os.close(handle)
    assert readable


def test_the_first_signal_is_a_request_and_the_second_an_order() -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored, where tests run in the background
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.made
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_module_on_the_leash_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "mien.cli.leash", "talker", "x"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 4
    assert '"words": ["x"]' in ran.stdout
