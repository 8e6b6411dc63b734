"""Ages in the spool while the wall clock is wrong, is set, and is wrong again."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_encoder.metrics import SPOOL_AGE, Metrics
from edge_encoder.spool.clock import now
from edge_encoder.spool.command import contents
from mien.bundle import Bundle
from mien.exit_codes import ExitCode
from tests.support.mjpeg_camera import MjpegCamera, walking
from tests.support.recognizer import eventually
from tests.support.spooling import Clock, epoch, kept, numbered, spool_in
from tests.support.stepped_clock import SteppedClock

ROOT = Path(__file__).parents[3]
E1, E2 = epoch(1), epoch(2)
MAX_AGE_S = 60.0
YEAR_MS = 365 * 86_400_000


def never_set(clock: Clock, boot: str = "another boot") -> None:
    """The device boots, and its clock begins in 1970."""
    clock.boot, clock.ahead_ms = boot, -clock.now_ms


def synced(clock: Clock) -> None:
    clock.ahead_ms = 0


def test_a_device_that_boots_in_1970_keeps_its_backlog_when_its_clock_is_set(
    tmp_path: Path,
) -> None:
    metrics, clock = Metrics(), Clock()
    with spool_in(tmp_path, clock=clock, max_age_s=MAX_AGE_S) as spool:
        spool.add(E1, 1, numbered(1))
    never_set(clock)
    with spool_in(tmp_path, metrics, clock, max_age_s=MAX_AGE_S) as spool:
        spool.add(E2, 1, numbered(2))  # before the sync
        clock.now_ms += 30_000
        synced(clock)
        spool.apply_rules()
        spool.add(E2, 2, numbered(3))
        assert (kept(spool, E1), kept(spool, E2)) == ([1], [1, 2])
        assert not metrics.drops
        # And what has become old is dropped by the right clock.
        clock.now_ms += 30_001
        spool.apply_rules()
        assert (kept(spool, E1), kept(spool, E2)) == ([], [2])
        assert metrics.drops == {SPOOL_AGE: 2}


def test_a_clock_behind_the_backlog_keeps_the_distances_in_it(tmp_path: Path) -> None:
    metrics, clock = Metrics(), Clock()
    with spool_in(tmp_path, clock=clock, max_age_s=MAX_AGE_S) as spool:
        spool.add(E1, 1, numbered(1))
        clock.now_ms += 40_000
        spool.add(E1, 2, numbered(2))
    never_set(clock)
    with spool_in(tmp_path, metrics, clock, max_age_s=MAX_AGE_S) as spool:
        clock.now_ms += 20_001
        spool.apply_rules()
        assert kept(spool, E1) == [2]
        clock.now_ms += 40_000
        spool.apply_rules()
        assert kept(spool, E1) == []
        assert metrics.drops == {SPOOL_AGE: 2}


def test_a_jump_while_it_runs_makes_nothing_older_or_younger(tmp_path: Path) -> None:
    for jump_ms in (YEAR_MS, -YEAR_MS, 2 * round(MAX_AGE_S * 1000), -1500):
        metrics, clock = Metrics(), Clock()
        with spool_in(tmp_path / str(jump_ms), metrics, clock, max_age_s=MAX_AGE_S) as spool:
            spool.add(E1, 1, numbered(1))
            clock.now_ms += 30_000
            clock.ahead_ms += jump_ms
            spool.add(E1, 2, numbered(2))
            clock.now_ms += 30_000
            spool.apply_rules()
            assert kept(spool, E1) == [1, 2]
            clock.now_ms += 1
            spool.apply_rules()
            assert kept(spool, E1) == [2]
            clock.now_ms += 30_000
            spool.apply_rules()
            assert metrics.drops == {SPOOL_AGE: 2}


def test_a_jump_while_nothing_runs_is_seen_within_a_boot(tmp_path: Path) -> None:
    """kill -9 after the clock was set and before the spool looked at it again, for instance."""
    metrics, clock = Metrics(), Clock()
    never_set(clock)
    with spool_in(tmp_path, clock=clock, max_age_s=MAX_AGE_S) as spool:
        spool.add(E1, 1, numbered(1))
    clock.now_ms += 40_000
    synced(clock)
    with spool_in(tmp_path, metrics, clock, max_age_s=MAX_AGE_S) as spool:
        clock.now_ms += 20_000
        spool.apply_rules()
        assert kept(spool, E1) == [1]
        clock.now_ms += 1
        spool.apply_rules()
        assert metrics.drops == {SPOOL_AGE: 1}


def test_what_a_jump_was_is_remembered_through_a_reboot(tmp_path: Path) -> None:
    metrics, clock = Metrics(), Clock()
    with spool_in(tmp_path, clock=clock, max_age_s=MAX_AGE_S) as spool:
        clock.ahead_ms = -YEAR_MS
        spool.add(E1, 1, numbered(1))
        synced(clock)
        spool.apply_rules()
    clock.boot = "another boot"
    clock.now_ms += 60_000
    with spool_in(tmp_path, metrics, clock, max_age_s=MAX_AGE_S) as spool:
        spool.apply_rules()
        assert kept(spool, E1) == [1]
    clock.now_ms += 1  # while it is off
    with spool_in(tmp_path, metrics, clock, max_age_s=MAX_AGE_S) as spool:
        spool.apply_rules()
        assert metrics.drops == {SPOOL_AGE: 1}


def test_what_was_accepted_by_a_clock_that_was_never_set_survives_into_a_boot_with_one(
    tmp_path: Path,
) -> None:
    metrics, clock = Metrics(), Clock()
    never_set(clock)
    with spool_in(tmp_path, clock=clock, max_age_s=MAX_AGE_S) as spool:
        spool.add(E1, 1, numbered(1))
        clock.now_ms += 40_000
        spool.add(E1, 2, numbered(2))
    clock.boot = "the next"
    synced(clock)
    with spool_in(tmp_path, metrics, clock, max_age_s=MAX_AGE_S) as spool:
        spool.apply_rules()
        assert kept(spool, E1) == [1, 2]
        clock.now_ms += 20_001
        spool.apply_rules()
        assert kept(spool, E1) == [2]
    assert metrics.drops == {SPOOL_AGE: 1}


def test_boot_after_boot_in_1970_loses_nothing(tmp_path: Path) -> None:
    metrics, clock = Metrics(), Clock()
    for number in range(1, 5):
        never_set(clock, f"boot {number}")
        with spool_in(tmp_path, metrics, clock, max_age_s=MAX_AGE_S) as spool:
            spool.add(E1, number, numbered(number))
            clock.now_ms += 10_000
            spool.apply_rules()
            assert kept(spool, E1) == list(range(1, number + 1))


def test_the_age_that_is_shown_is_the_one_that_is_judged_by(tmp_path: Path) -> None:
    clock = Clock()
    with spool_in(tmp_path, clock=clock, max_age_s=MAX_AGE_S) as spool:
        spool.add(E1, 1, numbered(1))
        clock.now_ms += 20_000
        clock.ahead_ms = YEAR_MS
        assert contents(tmp_path, clock)["oldest_age_s"] == 20.0  # before the spool has looked
        spool.apply_rules()
        assert contents(tmp_path, clock)["oldest_age_s"] == 20.0
    never_set(clock)
    assert contents(tmp_path, clock)["oldest_age_s"] == 0.0


STEPS = st.one_of(
    st.tuples(st.just("pass"), st.integers(0, 40_000)),
    st.tuples(st.just("jump"), st.integers(-(10**9), 10**9).map(lambda s: 1000 * s)),
    st.tuples(st.sampled_from(["add", "restart", "rules"]), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_however_a_boot_s_clock_is_set_exactly_what_is_old_is_dropped(
    steps: list[tuple[str, int]],
) -> None:
    folder, clock, accepted = Path(tempfile.mkdtemp()), Clock(), dict[int, int]()
    try:
        while steps:
            with spool_in(folder, clock=clock, max_age_s=MAX_AGE_S) as spool:
                while steps and steps[0][0] != "restart":
                    what, amount_ms = steps.pop(0)
                    clock.now_ms += amount_ms if what == "pass" else 0
                    clock.ahead_ms += amount_ms if what == "jump" else 0
                    if what == "add":
                        accepted[len(accepted) + 1] = clock.now_ms
                        spool.add(E1, len(accepted), numbered(len(accepted)))
                spool.apply_rules()
                limit_ms = clock.now_ms - round(MAX_AGE_S * 1000)
                fresh = [seq for seq, at_ms in accepted.items() if at_ms >= limit_ms]
                assert kept(spool, E1) == fresh
            steps = steps[1:]
    finally:
        shutil.rmtree(folder)


def test_the_system_s_clocks_are_read() -> None:
    before, after = now(), now()
    assert after.running_ms >= before.running_ms > 0
    assert before.boot == after.boot
    if sys.platform.startswith("linux"):
        assert before.boot


async def test_a_device_whose_clock_is_set_while_it_runs_drops_nothing(
    bundle: Bundle, tmp_path: Path
) -> None:
    spool, results = tmp_path / "spool", tmp_path / "results.jsonl"
    clock = SteppedClock(tmp_path / "clock")
    clock.step(-50 * 365 * 86400)
    camera = MjpegCamera(walking)
    with camera.on() as url:
        module, arguments = clock.started(
            *("edge_encoder.cli", "run", "--source", url, "--server", "127.0.0.1:1"),
            *("--bundle", str(bundle.folder), "--spool", str(spool), "--chunk_faces", "1"),
            *("--results", str(results), "--log_level", "warning"),
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments), stderr=subprocess.PIPE, cwd=ROOT
        )

        def waiting(chunks: int) -> bool:
            if process.returncode is not None:
                return True
            started = results.is_file() and '"started"' in results.read_text()
            return started and contents(spool)["chunks"] >= chunks

        try:
            await eventually(lambda: waiting(4))
            early = contents(spool)["chunks"]
            clock.step(0)
            await eventually(lambda: waiting(early + 4))
        finally:
            process.terminate()
            _, log = await process.communicate()
    assert process.returncode == ExitCode.OK, log.decode()
    found = contents(spool)
    assert found["books"] == {"accepted": {"chunks": found["chunks"], "faces": found["faces"]}}
    assert found["chunks"] >= early + 4
