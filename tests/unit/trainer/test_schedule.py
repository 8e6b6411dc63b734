"""The learning rate over the steps."""

import pytest

from trainer.config import StageConfig
from trainer.schedule import cycle_at, one_cycle

CONFIG = StageConfig(epochs=10, learning_rate=0.1, warmup_share=0.2, restarts=(6, 8))


def test_a_cycle_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [one_cycle(step, 100, CONFIG) for step in range(100)]
    assert max(rates) == rates[20] == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.004)
    assert rates[-1] < 1e-3


def test_each_restart_begins_a_cycle_of_its_own() -> None:
    assert cycle_at(0, 5, CONFIG) == (0, 0, 30)
    assert cycle_at(29, 5, CONFIG) == (0, 29, 30)
    assert cycle_at(30, 5, CONFIG) == (1, 0, 10)
    assert cycle_at(49, 5, CONFIG) == (2, 9, 10)


@pytest.mark.parametrize("restarts", [(0,), (8, 6), (3, 3), (10,)])
def test_restarts_that_are_no_epochs_in_order_are_refused(restarts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        cycle_at(0, 5, StageConfig(epochs=10, restarts=restarts))
