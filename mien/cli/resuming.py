"""One watch out of as many calls of WatchRecognitions as it takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from mien.backoff import Backoff
from mien.cli.security import PLAIN, Security
from mien.cli.server import connected
from mien.errors import (
    ConfigError,
    MienError,
    ResumeLostError,
    UnauthenticatedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from mien.v1.recognition_pb2 import WatchRecognitionsRequest, WatchRecognitionsResponse


# Watchers are few, and want results within two seconds of a recognizer's return.
LONGEST_WAIT_S = 1.5


def watching(
    address: str,
    request: WatchRecognitionsRequest,
    give_up_s: float,
    security: Security = PLAIN,
) -> Generator[WatchRecognitionsResponse, None, None]:
    """Yield each response once, and go on after the last one when the connection breaks.

    `request` is changed: it carries the token of what was yielded last. Ends when the recognizer
    ends the call without an error. Raises UnavailableError when nothing answers at first, or for
    `give_up_s` after a break; RefusedError; ConfigError for files that cannot be used. `security`'s
    files are read for each call: one whose token or certificate has expired is followed by another.
    """
    backoff = Backoff(longest_s=LONGEST_WAIT_S)
    patience = _Patience(give_up_s)
    while True:
        try:
            for response in _call(address, security, request, patience):
                request.resume_token = response.resume_token
                backoff.reset()
                yield response
        except ResumeLostError as error:
            _say(f"{error}. Some recognitions may be missing here")
            request.resume_token = b""
        except (UnavailableError, UnauthenticatedError, ConfigError) as error:
            # After a break a token or certificate may be renewed yet; at first it is just wrong.
            if patience.is_over(error):
                raise
            _say(f"{error}; trying to go on")
        else:
            return
        time.sleep(backoff.next_s())  # others come back to the server, too: spread in time


def _call(
    address: str, security: Security, request: WatchRecognitionsRequest, patience: _Patience
) -> Iterator[WatchRecognitionsResponse]:
    from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

    with connected(address, security, resumes=True) as channel:
        call = RecognitionServiceStub(channel).WatchRecognitions(request)
        call.initial_metadata()  # comes when the subscription has begun
        patience.note_begun()
        for response in call:
            patience.note_answer()
            yield response


class _Patience:
    """How long to go on trying: since the last call that worked was broken."""

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s
        self._give_up_at_s: float | None = None
        self._begun_s: float | None = None
        self._ever_begun = False

    def note_begun(self) -> None:
        self._begun_s = time.monotonic()

    def note_answer(self) -> None:
        self._give_up_at_s = None

    def is_over(self, error: MienError) -> bool:
        """To be asked once after each break."""
        now_s = time.monotonic()
        if isinstance(error, UnauthenticatedError):
            self._begun_s = None  # metadata comes with a refusal, too
        self._ever_begun = self._ever_begun or self._begun_s is not None
        steady = self._begun_s is not None and now_s - self._begun_s >= self._give_up_s
        self._begun_s = None
        if self._give_up_at_s is None or steady:
            self._give_up_at_s = now_s + self._give_up_s
        return not self._ever_begun or now_s >= self._give_up_at_s


def _say(text: str) -> None:
    print(f"mien watch: {text}", file=sys.stderr, flush=True)
