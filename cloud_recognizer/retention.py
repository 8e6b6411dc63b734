"""What is kept for so long is deleted by its age, while a service runs."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

_log = logging.getLogger(__name__)

FORGET_EVERY_S: Final = 3600.0


async def forget_regularly(
    forget: Callable[[float], None],
    *,
    max_age_s: float,
    what: str,
    clock: Callable[[], float],
    executor: Executor,
    every_s: float = FORGET_EVERY_S,
) -> None:
    """Have what is older than max_age_s deleted, at once and then every so often, until cancelled.

    forget: called on the executor with the Unix time before which all goes; may raise OSError,
    which is logged: it is tried again. what: names it in the log. clock: Unix time.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            await loop.run_in_executor(executor, forget, clock() - max_age_s)
        except OSError as error:
            _log.error("old entries of %s stay: %s", what, error)
        await asyncio.sleep(every_s)
