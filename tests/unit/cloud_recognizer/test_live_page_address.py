"""Where the page may be served, and what it says of JPEG."""

import re
import socket
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.jpeg import DEFAULT_QUALITY
from cloud_recognizer.config import CloudConfig, parse_config
from cloud_recognizer.live_page import jpeg, site
from cloud_recognizer.live_page.address import PageAddress
from mien.bundle import Bundle
from mien.errors import ConfigError
from tests.support.recognizer import running_recognizer

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "http://127.0.0.1:8080/"),
        ("localhost:0", "localhost", 0, "http://localhost:0/"),
        ("[::1]:8080", "::1", 8080, "http://[::1]:8080/"),
    ],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int, url: str) -> None:
    address = PageAddress.parse(text)
    assert (address.host, address.port, address.url(port)) == (host, port, url)


@pytest.mark.parametrize(
    "text", ["", "8080", "localhost", ":8080", "::1:8080", "a:b", "h:65536", "u@h:1", "h:1/x"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="live_page must be HOST:PORT"):
        CloudConfig(Path("b"), live_page=text)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.7", "faces.example"])  # noqa: S104
def test_beyond_loopback_it_must_be_insisted_upon(host: str) -> None:
    with pytest.raises(ConfigError, match="live_page_insecure"):
        CloudConfig(Path("b"), live_page=f"{host}:8080")
    CloudConfig(Path("b"), live_page=f"{host}:8080", live_page_insecure=True)


def test_it_is_off_by_default_and_a_flag_turns_it_on() -> None:
    assert CloudConfig(Path("b")).live_page is None
    config = parse_config(["--bundles", "b", "--live_page", "127.0.0.1:8080"])
    assert config.live_page == "127.0.0.1:8080"


async def test_a_port_that_is_taken_is_said(bundles: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"live_page: 127.0.0.1:{port} cannot be bound"):
            async with running_recognizer(bundles, live_page=f"127.0.0.1:{port}"):
                pass


def test_a_wheel_takes_the_pages_files_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package = ROOT / "cloud_recognizer"
    globs = project["tool"]["setuptools"]["package-data"]["cloud_recognizer"]
    taken = {path.name for glob in globs for path in package.glob(glob)}
    assert taken == set(site.FILES)


def test_the_cost_as_jpeg_is_the_figure_of_the_readme() -> None:
    row = next(
        line for line in README.read_text().splitlines() if "`jpeg_file_bytes_a_face`" in line
    )
    assert row.split("|")[2].strip() == f"{jpeg.BYTES_A_FACE:g}"
    assert f"quality {jpeg.QUALITY}" in row
    assert jpeg.QUALITY == DEFAULT_QUALITY
    assert re.search(rf"\b{jpeg.BYTES_A_FACE:g} bytes\b", jpeg.SOURCE)


def test_the_cost_as_jpeg_is_not_said_of_faces_that_were_not_measured(bundle: Bundle) -> None:
    image = bundle.manifest.image
    assert jpeg.jpeg_bytes_a_face(image) == jpeg.BYTES_A_FACE
    assert jpeg.jpeg_bytes_a_face(replace(image, height=96)) is None
