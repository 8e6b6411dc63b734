"""Who may ask for the live page: its own pages and programs, and no other site's."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import browser
from tests.support.recognizer import running_recognizer

PAGE = {"live_page": "127.0.0.1:0"}
OURS = {"Host": "10.0.0.5:8080"}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"Host": "localhost:8080"}, 200),
        ("/", {"Host": "[::1]:8080"}, 200),
        ("/", {"Host": "faces.example"}, 200),
        ("/", {"Host": "attacker.example"}, 403),
        ("/", {"Host": "attacker.example:80@localhost"}, 403),
        ("/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("/events", {"Host": "attacker.example"}, 403),
        ("/events", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("/events", {"Sec-Fetch-Site": "same-site"}, 403),
        ("/events", {"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
async def test_other_sites_can_link_to_the_page_and_read_nothing(
    bundles: Path, path: str, headers: dict[str, str], status: int
) -> None:
    settings: dict[str, Any] = {"live_page_names": ["faces.example"], **PAGE}
    async with running_recognizer(bundles, **settings) as running, browser(running) as session:
        async with session.get(path, headers=headers) as response:
            assert response.status == status
            assert "Access-Control-Allow-Origin" not in response.headers
        refused = running.sample("page_refusals_total", code="foreign_page")
    assert refused == (status == 403)


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({**OURS, "Origin": "http://10.0.0.5:8080"}, False),
        ({"Host": "LOCALHOST:8080", "Origin": "http://localhost:8080"}, False),
        ({"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, False),
        ({"Host": "127.0.0.1:8080", "Origin": "https://faces.example"}, False),  # by a proxy
        ({"Host": "faces.example", "Origin": "https://faces.example:8443"}, False),
        (OURS, False),  # no browser: one says Origin with each POST
        ({**OURS, "Origin": "http://attacker.example"}, True),
        ({**OURS, "Origin": "http://10.0.0.5:9090"}, True),
        ({**OURS, "Origin": "http://10.0.0.5"}, True),
        ({**OURS, "Origin": "http://10.0.0.5:8080@attacker.example"}, True),
        ({**OURS, "Origin": "null"}, True),
        ({**OURS, "Origin": ""}, True),
        ({**OURS, "Origin": "http://attacker.example", "Sec-Fetch-Site": "same-origin"}, True),
    ],
)
@pytest.mark.parametrize("path", ["/events", "/picture"])
async def test_where_browsers_do_not_say_sec_fetch_another_site_is_known_by_its_origin(
    bundles: Path, path: str, headers: dict[str, str], foreign: bool
) -> None:
    """As over plain HTTP beyond loopback; events are a GET, a picture is a POST."""
    settings: dict[str, Any] = {"live_page_names": ["faces.example"], **PAGE}
    async with running_recognizer(bundles, **settings) as running, browser(running) as session:
        method = "GET" if path == "/events" else "POST"
        async with session.request(
            method, path, params={"device": "door"}, headers=headers
        ) as response:
            assert response.status == (403 if foreign or path == "/picture" else 200)
            if response.status == 403:
                code = (await response.json())["code"]
                assert code == ("foreign_page" if foreign else "reconstruction_disabled")
        assert running.sample("page_refusals_total", code="foreign_page") == foreign
