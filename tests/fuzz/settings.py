"""Files of an operator. Whatever the bytes: a ConfigError, or settings.

The first byte says which file the rest is: a fleet's cameras, a policy, a recognizer's settings.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.policy import Policy
from edge_encoder.fleet.cameras_file import parse_cameras
from mien.errors import ConfigError
from mien.settings import checked_settings

MAX_BYTES = 2048
POLICY = Path(__file__).parents[2] / "deploy" / "policy.yaml"
FILE = Path(tempfile.mkdtemp(prefix="mien-fuzz-")) / "policy.yaml"


def one_input(data: bytes) -> bool:
    """Whether it is accepted."""
    kind, rest = data[:1], data[1:]
    try:
        if kind == b"c":
            for camera in parse_cameras(rest).values():
                assert camera.servers
        elif kind == b"p":
            FILE.write_bytes(rest)
            assert Policy.load(FILE).contexts
        else:
            CloudConfig(**checked_settings(CloudConfig, _document(rest))).loggable()
    except ConfigError:
        return False
    return True


def _document(text: bytes) -> dict[str, object]:
    """A mapping with names. Reading its file is jsonargparse's, whose errors are none of ours."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(str(error)) from error
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise ConfigError("no mapping with names")
    return document


def seeds() -> Iterator[bytes]:
    yield (
        b"c" + b"defaults:\n  server: [one:50051, two:50051]\n  insecure: true\n"
        b"cameras:\n  door:\n    source: 0\n"
    )
    yield b"c" + b"cameras: {yard: {source: 'rtsp://a/b', expected_fps: 15, context: retail}}\n"
    yield b"p" + b"contexts: [retail, demonstration]\nlongest_retention_s: 60\n"
    yield b"p" + POLICY.read_bytes()[:MAX_BYTES]
    yield (
        b"s"
        + b"bundles: bundles\nport: 50051\ndevice_groups: {'door-*': doors}\nnats: nats://localhost\n"
    )
    yield b"s" + b"bundles: bundles\ncredits: 4\npolicy: null\naudit_log: a\nprovider: cpu\n"
