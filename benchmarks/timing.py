"""Processor time of tasks that take turns."""

import time
from collections.abc import Callable

ROUNDS = 7


def least_s(tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Processor seconds of each task in its best round; the first round only warms up."""
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(1 + ROUNDS):
        for name, task in tasks.items():
            started = time.process_time()
            task()
            spent[name].append(time.process_time() - started)
    return {name: min(seconds[1:]) for name, seconds in spent.items()}
