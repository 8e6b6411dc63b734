"""The live page's end in tests: a client, and the events that it is told."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.audit import AuditLog
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.live_page.address import PageAddress
from cloud_recognizer.live_page.figures import Figures
from cloud_recognizer.live_page.site import Site, serving
from cloud_recognizer.live_page.sources import Sources
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.recognizer import Recognizer
from cloud_recognizer.reconstruction import Reconstruction
from mien.bitstream import Limits
from tests.support.hubs import opened
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


@dataclass(frozen=True)
class Alone:
    """A page over a hub that tests publish to, without models or devices."""

    hub: Hub
    metrics: Metrics
    port: int

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, 0 while it has none."""
        return self.metrics.registry.get_sample_value(f"mien_cloud_{name}", labels) or 0.0


@asynccontextmanager
async def page_alone(write_timeout_s: float = 30.0, **settings: Any) -> AsyncIterator[Alone]:
    """Serve the page over a hub as these settings of the recognizer ask for."""
    config = CloudConfig(Path(), **settings)
    async with opened(**settings) as hub:
        models = Catalogue(Limits(), hub.metrics)
        sources = Sources(
            hub.hub,
            AuditLog(None, hub.metrics),
            Figures(models, hub.metrics, Accuracy(config, models, hub.metrics)),
            Reconstruction(Recognizer(models, hub.metrics), hub.metrics, allowed=False),
            LayerRequests(),
            dict,
        )
        site = Site(sources, hub.metrics, [], write_timeout_s)
        async with serving(site, PageAddress("127.0.0.1", 0)) as port:
            yield Alone(hub.hub, hub.metrics, port)


def page_of(running: Running) -> str:
    assert running.serving.live_page is not None
    return running.serving.live_page


@asynccontextmanager
async def browser(running: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(page_of(running)) as session:
        yield session


@asynccontextmanager
async def watching(page: str, last_event_id: str = "") -> AsyncIterator[Events]:
    """A page's events, from `begin` on."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    async with (
        aiohttp.ClientSession(page, read_bufsize=4096) as session,
        session.get("/events", headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        events = Events(response)
        assert (await events.next()).name == "begin"
        yield events
