"""Counts the Python calls into some files: what a thing costs, without a clock."""

import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def calls_into(endings: Sequence[str], but: Collection[str] = ()) -> Iterator[Counter[str]]:
    """Function → calls, in this thread and in those that begin meanwhile.

    endings: of the files' paths. but: functions that do not count.
    """
    counted: Counter[str] = Counter()
    before = sys.getprofile()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        here = event == "call" and code.co_filename.endswith(tuple(endings))
        if here and code.co_name not in but:
            counted[code.co_qualname] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield counted
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]  # None turns it off
