"""rollout.json: what may stand in it, what each step makes of it, and that it is never half."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.errors import RolloutError
from mien.rollout import FILE, MAX_PREVIOUS, Canary, Rollout, change_rollout, read_rollout

A, B, C = (digit * 64 for digit in "abc")

ids = st.text("0123456789abcdef", min_size=64, max_size=64)
states = st.builds(
    Rollout,
    st.none() | ids,
    st.lists(ids, max_size=MAX_PREVIOUS).map(tuple),
    st.none() | st.builds(Canary, ids, st.floats(0, 1)),
    st.none() | ids,
)


@given(states)
def test_a_state_is_read_as_it_was_written(state: Rollout) -> None:
    assert Rollout.from_json(state.to_json()) == state


@given(st.binary(max_size=200))
def test_bytes_that_are_no_state_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(RolloutError):
        Rollout.from_json(data)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"format": 2}',
        '{"format": 1, "promote": null}',
        '{"format": 1, "promoted": "abc"}',
        '{"format": 1, "promoted": 7}',
        '{"format": 1, "previous": "a"}',
        '{"format": 1, "previous": [null]}',
        f'{{"format": 1, "canary": {{"bundle_id": "{A}"}}}}',
        f'{{"format": 1, "canary": {{"bundle_id": "{A}", "share": true}}}}',
        f'{{"format": 1, "canary": {{"bundle_id": "{A}", "share": NaN}}}}',
        f'{{"format": 1, "canary": {{"bundle_id": "{A}", "share": 1{"0" * 400}}}}}',
        f'{{"format": 1, "shadow": "../{A[:61]}"}}',
    ],
)
def test_what_an_editor_got_wrong_is_said(text: str) -> None:
    with pytest.raises(RolloutError, match=r"rollout\.json|share"):
        Rollout.from_json(text.encode())


def test_a_file_that_is_not_there_decides_nothing(tmp_path: Path) -> None:
    assert read_rollout(tmp_path) == Rollout()
    (tmp_path / FILE).write_bytes(b" " * 70_000)
    with pytest.raises(RolloutError, match="more than"):
        read_rollout(tmp_path)


def test_promoting_remembers_and_rolling_back_returns() -> None:
    state = Rollout().promote(A).promote(B).promote(C)
    assert (state.promoted, state.previous) == (C, (B, A))
    assert state.promote(C) == state
    back = state.roll_back()
    assert (back.promoted, back.previous) == (B, (A,))
    assert back.roll_back().promoted == A
    with pytest.raises(RolloutError, match="none to return to"):
        back.roll_back().roll_back()
    again = state.promote(A)
    assert (again.promoted, again.previous) == (A, (C, B))


def test_what_is_promoted_is_no_canary_and_no_shadow_any_more() -> None:
    state = Rollout(A, canary=Canary(B, 0.1), shadow=C)
    assert state.promote(B) == Rollout(B, (A,), None, C)
    assert state.promote(C) == Rollout(C, (A,), Canary(B, 0.1), None)


def test_the_memory_of_promotions_is_bounded() -> None:
    state = Rollout()
    for number in range(3 * MAX_PREVIOUS):
        state = state.promote(f"{number:064x}")
    assert len(state.previous) == MAX_PREVIOUS


def test_a_bundle_that_failed_loses_every_role() -> None:
    state = Rollout(B, (A, C), Canary(C, 0.5))
    assert state.without(B, A) == Rollout(A, (C,), Canary(C, 0.5))
    assert state.without(C, B) == Rollout(B, (A,), None)
    assert replace(state, shadow=A).without(A, B) == Rollout(B, (C,), Canary(C, 0.5))
    assert Rollout().without(B, A) == Rollout(A)


def test_a_device_stays_where_it_is_and_joins_only_when_the_share_grows() -> None:
    devices = [f"camera-{number}" for number in range(2000)]
    tenth = {device for device in devices if Canary(A, 0.1).takes(device)}
    third = {device for device in devices if Canary(A, 0.3).takes(device)}
    assert tenth == {device for device in devices if Canary(A, 0.1).takes(device)}
    assert tenth < third
    assert 130 < len(tenth) < 270  # 200, and five standard deviations
    assert 500 < len(third) < 700
    assert not any(Canary(A, 0).takes(device) for device in devices)
    assert all(Canary(A, 1).takes(device) for device in devices)
    # Another canary is tried by others.
    assert tenth != {device for device in devices if Canary(B, 0.1).takes(device)}


def promote_many(folder: Path, first: int) -> None:
    for number in range(first, first + 8):
        change_rollout(folder, lambda state, n=number: state.promote(f"{n:064x}"))  # type: ignore[misc]


def test_processes_that_change_the_state_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=promote_many, args=(tmp_path, 100))
    other.start()
    promote_many(tmp_path, 0)
    other.join(60)
    assert other.exitcode == 0
    state = read_rollout(tmp_path)
    assert state.promoted is not None
    promoted = {int(x, 16) for x in (state.promoted, *state.previous)}
    assert promoted == {*range(8), *range(100, 108)}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    change_rollout(tmp_path, lambda state: state.promote(A))
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(RolloutError):
        change_rollout(tmp_path, Rollout.roll_back)
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with pytest.raises(RolloutError, match="cannot be written"):
        change_rollout(tmp_path / "nowhere", lambda state: state.promote(A))
