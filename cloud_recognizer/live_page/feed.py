"""What one browser is told, as server-sent events (WHATWG HTML, section 9.2).

    begin    once: whether pictures are allowed
    faces    a chunk's recognitions; its id resumes after it
    devices  every FIGURES_EVERY_S seconds: who is connected here, and how long without a face
    figures  after them, and that the connection lives
    missed   what came while the browser was away is not held any more
    end      nothing more comes, and why

What waits for a slow browser is bounded by its subscription, which drops the oldest and counts it.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from cloud_recognizer.audit import Context, Watching
from cloud_recognizer.hub.subscription import Subscription
from cloud_recognizer.live_page.sources import Sources
from mien.errors import MienError, ProtocolError, ResumeLostError
from mien.messages.results import Recognition
from mien.messages.watched import WatchedChunk

FIGURES_EVERY_S: Final = 2.0
# As state.js has it.
MAX_DEVICES: Final = 200
# Milliseconds after which a browser that has lost us tries again.
RETRY_MS: Final = 2000


def event(name: str, data: object, id_: str = "") -> bytes:
    """One event. JSON has no raw line break, so its data is one line."""
    head = f"id: {id_}\n" if id_ else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Feed:
    """One browser's events."""

    def __init__(
        self,
        sources: Sources,
        subscription: Subscription,
        watching: Watching,
        *,
        missed: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._subscription = subscription
        self._watching = watching
        self._missed = missed
        self._clock = clock

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Until the hub closes, or it cannot be written down any more that somebody watches."""
        yield self._begin()
        if self._missed:
            yield event("missed", {})
        following = asyncio.ensure_future(anext(self._subscription))
        due_s = self._clock()
        try:
            while True:
                if self._clock() >= due_s:
                    due_s = self._clock() + FIGURES_EVERY_S
                    yield event("devices", _connected(self._sources.connected()))
                    yield event("figures", self._sources.figures.now())
                await asyncio.wait({following}, timeout=max(due_s - self._clock(), 0))
                if following.done():
                    chunk = following.result()
                    await self._watching.note(chunk)
                    yield event("faces", _shown(chunk), chunk.resume_token.hex())
                    following = asyncio.ensure_future(anext(self._subscription))
        except StopAsyncIteration:
            yield event("end", {"reason": "the recognizer is stopping"})
        except MienError as error:
            yield event("end", {"reason": str(error)})
        finally:
            following.cancel()

    def _begin(self) -> bytes:
        said = {"reconstruction": self._sources.reconstruction.allowed}
        return f"retry: {RETRY_MS}\n".encode() + event("begin", said)


@asynccontextmanager
async def feed(sources: Sources, caller: Context, last_event_id: str) -> AsyncIterator[Feed]:
    """A feed that has begun: from now on, or after the event that the browser saw last.

    Raises OverloadedError, and AuditError where it cannot be written down that somebody watches.
    """
    async with _subscription(sources, last_event_id) as (subscription, missed):  # noqa: SIM117
        async with sources.audit.watching(caller, None, (), ()) as watching:
            yield Feed(sources, subscription, watching, missed=missed)


@asynccontextmanager
async def _subscription(
    sources: Sources, last_event_id: str
) -> AsyncIterator[tuple[Subscription, bool]]:
    """A subscription, and whether something between was lost."""
    token = _token(last_event_id)
    lost = bool(last_event_id) and not token
    async with AsyncExitStack() as stack:
        if token:
            try:
                resumed = sources.hub.subscription((), (), token)
                subscription = await stack.enter_async_context(resumed)
            except (ProtocolError, ResumeLostError):
                lost = True
            else:
                yield subscription, False
                return
        yield await stack.enter_async_context(sources.hub.subscription((), ())), lost


def _token(last_event_id: str) -> bytes:
    try:
        return bytes.fromhex(last_event_id)
    except ValueError:
        return b""


def _connected(silent_s: Mapping[str, float]) -> list[dict[str, object]]:
    """Those that were heard of last, at most as many as a page shows."""
    last = sorted(silent_s.items(), key=lambda device: device[1])[:MAX_DEVICES]
    return [{"device": name, "silent_s": round(seconds, 1)} for name, seconds in last]


def _shown(chunk: WatchedChunk) -> dict[str, object]:
    """before_ms: how long before the newest face of its chunk a face was seen.

    Tracks and runs are strings: JavaScript's numbers end at 2⁵³.
    """
    newest_ms = max(face.time_ms for face in chunk.recognitions)
    return {
        "device": chunk.device_id,
        "run": str(chunk.epoch),
        "dropped": chunk.dropped,
        "faces": [_face(face, newest_ms) for face in chunk.recognitions],
    }


def _face(face: Recognition, newest_ms: int) -> dict[str, object]:
    return {
        "track": str(face.track_id),
        "before_ms": newest_ms - face.time_ms,
        "expression": face.expression,
        "probability": round(face.probability, 3),
    }
