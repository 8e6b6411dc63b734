"""A browser's request as the audit log sees who calls."""

from aiohttp import web


class Browser:
    """See audit.Context. The page knows no names; a proxy before it may say for whom it asks."""

    def __init__(self, request: web.Request) -> None:
        self._forwarded_for = request.headers.get("X-Forwarded-For")
        peername = request.get_extra_info("peername") or ("unknown", 0)
        self._peer = f"live_page:{peername[0]}:{peername[1]}"

    def peer(self) -> str:
        """live_page:ADDRESS:PORT."""
        return self._peer

    def peer_identities(self) -> None:
        """Nobody is known by name."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The one header that the log looks at."""
        return (("x-forwarded-for", self._forwarded_for),) if self._forwarded_for else ()
