"""What a bundle and its folder hold. Whatever the bytes: a BundleError, or what is written back the
same.

The first byte says what the rest is. Tables are also put together from their arrays' bytes, for the
checksums of a zip file keep nearly every other input out.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from mien.errors import BundleError
from mien.manifest import Manifest
from mien.rollout import Rollout
from mien.signing import parse_signatures
from mien.tables import CdfTables
from tests.support.tiny_bundle import tiny_tables

MAX_BYTES = 4096
SHA256 = "3a" * 32
MANIFEST = b"""{"format": 2, "name": "tiny", "created": "2026-01-01",
"expressions": ["neutral", "surprise"], "image": {"channels": 1, "height": 48, "width": 48,
"landmarks": [[15.5, 18.0], [32.5, 18.0], [24.0, 27.0], [17.5, 37.0], [30.5, 37.0]]},
"latent": {"channels": 4, "height": 3, "width": 3, "default_level": 2},
"figures": {"accuracy": 0.5, "of": [1, 2.5]},
"files": {"tables.npz": {"sha256": "%b", "bytes": 7}}, "calibration": {"temperature": 1.0,
"expressions": [1, 1], "confidences": [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]}}""" % SHA256.encode()
ROLLOUT = (
    b'{"format": 1, "promoted": "%b", "previous": ["%b"], "shadow": null, '
    b'"canary": {"bundle_id": "%b", "share": 0.1}}'
)


def one_input(data: bytes) -> bool:
    """Whether it is accepted."""
    kind, rest = data[:1], data[1:]
    try:
        if kind == b"m":
            manifest = Manifest.from_json(rest)
            assert Manifest.from_json(manifest.to_json()) == manifest
            assert len(manifest.codec_id) == 64  # or a ManifestError, where there are no tables
        elif kind == b"r":
            rollout = Rollout.from_json(rest)
            assert Rollout.from_json(rollout.to_json()) == rollout
        elif kind == b"s":
            assert all(len(signature) == 64 for signature in parse_signatures(rest).values())
        elif kind == b"z":
            _check_tables(rest)
        else:
            _check_tables(_zipped(rest))
    except BundleError:
        return False
    return True


def _check_tables(data: bytes) -> None:
    tables = CdfTables.load(data)
    assert len(tables.rows()) == len(tables.sizes)


def _zipped(data: bytes) -> bytes:
    """A zip file of members: a name and its length, then three bytes of length and the bytes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        while data:
            name, data = data[1 : 1 + data[0]], data[1 + data[0] :]
            size = int.from_bytes(data[:3], "little")
            member, data = data[3 : 3 + size], data[3 + size :]
            archive.writestr(zipfile.ZipInfo(name.decode("latin-1").replace("\0", "")), member)
    return buffer.getvalue()


def seeds() -> Iterator[bytes]:
    yield b"m" + MANIFEST
    yield b"m" + MANIFEST.partition(b', "calibration"')[0] + b"}"
    yield b"r" + ROLLOUT.replace(b"%b", SHA256.encode())
    yield b'r{"format": 1}'
    yield b"s" + f"ed25519 {SHA256[:16]} {'A' * 86}==\n".encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tables.npz"
        tiny_tables().save(path)
        tables = path.read_bytes()
    yield b"z" + tables
    parts = b""
    with zipfile.ZipFile(BytesIO(tables)) as archive:
        for info in archive.infolist():
            name, member = info.filename.encode(), archive.read(info)
            parts += bytes([len(name)]) + name + len(member).to_bytes(3, "little") + member
    yield b"t" + parts
