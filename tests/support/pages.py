"""The live page's end in tests: a client, and the events that it is told."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.support.recognizer import Running


@dataclass(frozen=True)
class Told:
    """One server-sent event. id: "" where it has none."""

    name: str
    data: Any
    id: str = ""


class Events:
    """What an EventSource would read out of an answer, by the rules of the standard."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, *names: str) -> Told:
        """The next event, or the next of these names."""
        while True:
            told = await self._read()
            if told.name in names or not names:
                return told

    async def _read(self) -> Told:
        fields: dict[str, str] = {}
        while True:
            line = (await self.response.content.readline()).decode()
            assert line.endswith("\n"), "the answer ended"
            if line == "\n":
                if "data" in fields:
                    data = json.loads(fields["data"])
                    return Told(fields["event"], data, fields.get("id", ""))
                fields = {}
                continue
            name, _, value = line.rstrip("\n").partition(": ")
            assert name in ("retry", "id", "event", "data"), line
            assert name not in fields, "one line of data"
            fields[name] = value


def page_of(running: Running) -> str:
    assert running.serving.live_page is not None
    return running.serving.live_page


@asynccontextmanager
async def browser(running: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(page_of(running), read_bufsize=4096) as session:
        yield session


@asynccontextmanager
async def watching(running: Running, last_event_id: str = "") -> AsyncIterator[Events]:
    """The page's events, from `begin` on."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    async with browser(running) as session, session.get("/events", headers=headers) as response:
        assert response.status == 200, await response.text()
        events = Events(response)
        assert (await events.next()).name == "begin"
        yield events
