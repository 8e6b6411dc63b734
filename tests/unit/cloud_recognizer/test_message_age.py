"""Ages of messages between clocks that are wrong, and set meanwhile."""

from datetime import UTC, datetime

import pytest

from cloud_recognizer.hub.message_age import MessageAge

NOON_S = 1_800_000_000.0


class Machine:
    """A recognizer's clocks. ahead_s: of the time of day, against NATS's."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.up_s = 77.0
        self.ahead_s = ahead_s
        self.age = MessageAge(lambda: self.up_s, lambda: NOON_S + self.up_s + self.ahead_s)

    def age_s(self, published_s: float, *, fresh: bool) -> float:
        """What is said now of a message that NATS took in at this second of `up_s`."""
        return self.age.of(datetime.fromtimestamp(NOON_S + published_s, UTC), fresh=fresh)


@pytest.mark.parametrize("ahead_s", [0.0, 3600.0, -3600.0])
def test_a_fresh_message_is_as_old_as_it_is_late_however_wrong_the_clock_is(ahead_s: float) -> None:
    machine = Machine(ahead_s)
    assert machine.age_s(77.0, fresh=True) == pytest.approx(0.0)
    machine.up_s += 20
    assert machine.age_s(97.0, fresh=True) == pytest.approx(0.0, abs=1e-5)
    assert machine.age_s(82.0, fresh=True) == pytest.approx(15.0, abs=1e-5)


def test_a_clock_that_is_set_meanwhile_changes_no_age() -> None:
    machine = Machine()
    assert machine.age_s(77.0, fresh=True) == pytest.approx(0.0)
    machine.ahead_s = 3600.0
    machine.up_s += 5
    assert machine.age_s(82.0, fresh=True) == pytest.approx(0.0, abs=1e-5)


def test_what_was_there_before_is_judged_by_the_time_of_day_and_never_younger_than_now() -> None:
    assert Machine().age_s(47.0, fresh=False) == pytest.approx(30.0, abs=1e-5)
    assert Machine(-3600.0).age_s(47.0, fresh=False) == 0.0
