"""URLs as they may stand in a log, a title or an error: without what lets somebody in."""

import re
from typing import Final

# A list is split only where another URL begins: a password may hold a comma.
_NEXT: Final = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]*://)")
# Some cameras want them in the path: rtsp://camera/user=admin_password=..._channel=1.sdp
_IN_PATH: Final = re.compile(r"/[^/]*(?:user|pass|pwd|token|auth|key)[a-z]*=.*", re.I | re.S)
_HOST_PORT: Final = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]+)(?::[0-9]+)?")
_UNCLEAR: Final = "…"


def without_credentials(text: str) -> str:
    """A URL, or several with commas between, without user, password, query and fragment.

    What has no scheme comes back as it is, but for a password that stands before an '@'. Passwords
    are people's: of one with '@', '/', '?' or '#' in it nothing is shown, and where it cannot be
    told what is password and what is host, neither is. Never raises.
    """
    return ",".join(_shown(url) for url in _NEXT.split(text))


def _shown(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return re.sub(r"(?s)^.*:.*@", "", url)
    head, query = re.match(r"(?s)([^?#]*)(.*)", rest).groups()  # type: ignore[union-attr]  # always
    head = _IN_PATH.sub(f"/{_UNCLEAR}", head).rpartition("@")[2]
    # Not the '@' of a query, ?password=p@ss, but that of a password with a '?' in it.
    cut = "@" in query and "=" not in query.partition("@")[0]
    if cut or not _HOST_PORT.fullmatch(head.partition("/")[0]):
        head = _UNCLEAR if head else ""
    return f"{scheme}://{head}"
