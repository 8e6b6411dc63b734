"""The page over HTTP: four files, one feed of events, and a picture where that is allowed.

    GET /  /page.css  /page.js  …      what stands in static/, read once when the service starts
    GET /events                        server-sent events, see `feed`
    POST /picture?device=ID            a synthetic picture of the device's next chunk, as JSON

Answers that are no answer are JSON, {"code": …, "message": …}. Nothing is logged of a request, for
it names devices.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from importlib import resources
from types import MappingProxyType
from typing import Final

from aiohttp import ClientConnectionError, web

from cloud_recognizer.live_page.address import PageAddress, is_page_of, may_be_asked_for
from cloud_recognizer.live_page.browser import Browser
from cloud_recognizer.live_page.feed import feed
from cloud_recognizer.live_page.listening import listening
from cloud_recognizer.live_page.sources import Sources
from cloud_recognizer.metrics import FOREIGN, SLOW, Metrics
from mien.errors import (
    BitstreamError,
    LayersMissingError,
    MienError,
    OverloadedError,
    ProtocolError,
    ReconstructionDisabledError,
    UnavailableError,
)
from mien.messages.ids import check_device_id

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BROWSERS: Final = 8
# How long a picture waits for its device to send something.
PATIENCE_S: Final = 10.0

FILES: Final = MappingProxyType(
    {
        "index.html": "text/html",
        "page.css": "text/css",
        "page.js": "text/javascript",
        "figures.js": "text/javascript",
        "picture.js": "text/javascript",
        "state.js": "text/javascript",
        "tables.js": "text/javascript",
        "timeline.js": "text/javascript",
        "icon.svg": "image/svg+xml",
    }
)
HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Server": "mien",
    }
)
STATUS: Final[dict[type[MienError], int]] = {
    ProtocolError: 400,
    ReconstructionDisabledError: 403,
    BitstreamError: 422,
    OverloadedError: 503,
    UnavailableError: 503,
}


class Site:
    """Answers browsers. names: hosts they may ask for. write_timeout_s: for one that is slow."""

    def __init__(
        self, sources: Sources, metrics: Metrics, names: list[str], write_timeout_s: float
    ) -> None:
        self._sources = sources
        self._metrics = metrics
        self._names = frozenset(names)
        self._write_timeout_s = write_timeout_s
        self._browsers = 0
        static = resources.files("cloud_recognizer.live_page") / "static"
        self._files = {name: (static / name).read_bytes() for name in FILES}

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(middlewares=[self._guarded], client_max_size=1024)
        application.on_response_prepare.append(_with_headers)
        application.router.add_get("/", self._file("index.html"))
        for name in FILES:
            application.router.add_get(f"/{name}", self._file(name))
        application.router.add_get("/events", self._events)
        application.router.add_post("/picture", self._picture)
        return application

    def refuse(self, code: str) -> None:
        """Count a request that was refused or cut short."""
        self._metrics.page_refused.labels(code).inc()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._is_ours(request):
            self.refuse(FOREIGN)
            message = "another site, or a host name that is not in live_page_names, asks for this"
            return web.json_response({"code": FOREIGN, "message": message}, status=403)
        try:
            return await handler(request)
        except MienError as error:
            self.refuse(error.code)
            status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
            return web.json_response({"code": error.code, "message": str(error)}, status=status)

    def _is_ours(self, request: web.Request) -> bool:
        """Whether our own page asks, or a program that is no browser.

        Browsers say Sec-Fetch-Site only to loopback and over TLS. Origin they say everywhere, with
        each POST, and with whatever else another site's page could read; a program says neither.
        """
        origin = request.headers.get("Origin")
        if origin is not None and not is_page_of(origin, request.host, self._names):
            return False
        site = request.headers.get("Sec-Fetch-Site", "none")
        # Another site may link to the page; it may not use what is behind it.
        followed = request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        from_here = site in ("same-origin", "none") or followed
        return from_here and may_be_asked_for(request.host, self._names)

    def _file(self, name: str) -> Handler:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=self._files[name], content_type=FILES[name], charset="utf-8")

        return answer

    async def _events(self, request: web.Request) -> web.StreamResponse:
        with self._browser():
            last_event_id = request.headers.get("Last-Event-ID", "")
            async with feed(self._sources, Browser(request), last_event_id) as opened:
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                async with aclosing(opened.events()) as events:
                    async for data in events:
                        if not await self._written(request, response, data):
                            break
        return response

    @contextmanager
    def _browser(self) -> Iterator[None]:
        if self._browsers >= MAX_BROWSERS:
            raise OverloadedError(f"{self._browsers} browsers have this page open already")
        self._browsers += 1
        self._metrics.page_browsers.set(self._browsers)
        try:
            yield
        finally:
            self._browsers -= 1
            self._metrics.page_browsers.set(self._browsers)

    async def _written(
        self, request: web.Request, response: web.StreamResponse, data: bytes
    ) -> bool:
        """Write; False where the browser has gone, or has read nothing for too long."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await response.write(data)
        except TimeoutError:
            self.refuse(SLOW)
            if request.transport is not None:
                request.transport.abort()
            return False
        except (ClientConnectionError, ConnectionError):
            return False
        return True

    async def _picture(self, request: web.Request) -> web.Response:
        sources = self._sources
        sources.reconstruction.check_allowed()
        device_id = request.query.get("device", "")
        check_device_id("device", device_id)
        chunk = await sources.layers.next_of(device_id, PATIENCE_S)
        pictures = await sources.reconstruction.pictures(chunk.payload, chunk.layers)
        newest = next((picture for picture in reversed(pictures) if picture.layers), None)
        if newest is None:
            raise LayersMissingError("the device's layers hold no picture of any face")
        await sources.audit.reconstructed(Browser(request), None, device_id, 1)
        png = base64.b64encode(newest.png).decode()
        return web.json_response({"track": str(newest.track_id), "png": png})


async def _with_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@asynccontextmanager
async def serving(site: Site, address: PageAddress) -> AsyncIterator[int]:
    """Serve while the context lasts; yields the port. Raises ConfigError."""
    # Without an access log; a handler ends with its browser.
    runner = web.AppRunner(
        site.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.5
    )
    await runner.setup()
    try:
        async with listening(runner, address, site.refuse) as port:
            yield port
    finally:
        await runner.cleanup()
