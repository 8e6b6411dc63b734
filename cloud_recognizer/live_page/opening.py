"""The page where the settings ask for one, and nothing at all where they do not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.live_page.address import PageAddress
from cloud_recognizer.live_page.sources import Sources
from cloud_recognizer.metrics import Metrics
from mien.errors import ConfigError


@asynccontextmanager
async def live_page(
    config: CloudConfig, metrics: Metrics, sources: Sources
) -> AsyncIterator[str | None]:
    """Serve the page while the context lasts; yields its URL, None where none is asked for.

    Raises ConfigError without aiohttp, and for an address that cannot be bound.
    """
    if config.live_page is None:
        yield None
        return
    try:
        from cloud_recognizer.live_page.site import Site, serving
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"live_page needs the package {error.name}: install mien's extra `page`"
        ) from error
    address = PageAddress.parse(config.live_page)
    site = Site(sources, metrics, config.live_page_names, config.write_timeout_s)
    async with serving(site, address) as port:
        yield address.url(port)
