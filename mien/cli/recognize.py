"""`mien recognize`: the expressions in photographs, one JSON object for each face.

photograph → detector → alignment → analysis → chunk ══ Recognize ══> recognizer

Faces are found and coded here, with what `mien-edge` uses; only coded chunks leave this machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.bundle import load_bundle
from mien.errors import MienError, SourceError
from mien.exit_codes import ExitCode
from mien.signing import TrustedKeys

if TYPE_CHECKING:
    from edge_encoder.detector.base import Image
    from mien.bundle import Bundle
    from mien.cli.security import Security
    from mien.messages.results import ChunkResult
    from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

_DEADLINE_S = 30.0
_CHUNK_FACES = 64

# The keys of a line, in their order. face: position in the photograph, the largest one first;
# payload_bytes: the face's share of the coded chunk.
_KEYS = (
    "image",
    "face",
    "box",
    "expression",
    "probability",
    "probabilities",
    "payload_bytes",
    "bundle_id",
    "error",
)


class NoFaceError(MienError):
    """No face was found in a photograph."""

    code = "no_face"


def recognize(
    images: Sequence[Path],
    server: str,
    bundle_folder: Path | None,
    keys: Path | None = None,
    security: Security | None = None,
) -> ExitCode:
    """Print a line for each face, and one with an error for each photograph without.

    keys: folder of public keys, one of which must have signed the bundle.
    Raises UnavailableError, RefusedError, BundleError. Photographs that cannot be read do not keep
    the others from being recognised; the exit code says that there were some.
    """
    from mien.cli.security import PLAIN
    from mien.cli.server import connected
    from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

    exit_code = ExitCode.OK
    security = security or PLAIN
    trusted = TrustedKeys.load(keys) if keys else None
    with connected(server, security) as channel:
        bundle = _bundle(server, bundle_folder, trusted, security)
        photographs = Photographs(bundle, RecognitionServiceStub(channel))
        for path in images:
            try:
                for line in photographs.recognised(path):
                    _print(image=str(path), bundle_id=photographs.bundle_id, **line)
            except (SourceError, NoFaceError) as error:
                _print(image=str(path), error={"code": error.code, "message": str(error)})
                if isinstance(error, SourceError):
                    exit_code = ExitCode.SOURCE
    return exit_code


def _bundle(
    server: str, folder: Path | None, keys: TrustedKeys | None, security: Security
) -> Bundle:
    """The bundle in a folder, or the recognizer's own, fetched as `mien-edge` does it."""
    from edge_encoder.config import EdgeConfig
    from edge_encoder.dialling import Dialler
    from edge_encoder.encoder_cache import fetch_encoder
    from edge_encoder.servers import Servers
    from mien.cli.released import chosen_bundle
    from mien.tls import FollowedTls

    if folder is not None:
        return load_bundle(chosen_bundle(folder), keys=keys)
    cache = EdgeConfig.cache.expanduser()
    dialler = Dialler(FollowedTls(security.tls) if security.tls else None, token=security.bearer)
    servers = Servers((server,))
    return asyncio.run(fetch_encoder(servers, cache, _DEADLINE_S, keys=keys, dialler=dialler))


def _print(**values: Any) -> None:
    print(json.dumps(dict.fromkeys(_KEYS) | values), flush=True)


def read_image(path: Path) -> Image:
    """uint8 (H, W, 3), blue, green, red. Raises SourceError."""
    from edge_encoder.camera import open_source
    from edge_encoder.capture.frames import frames_of

    if not path.is_file():
        raise SourceError(f"{path} is no file")
    with open_source(str(path)) as source:
        return next(frames_of(source)).image


class Photographs:
    """Finds and codes the faces of photographs, and asks the recognizer for their expressions."""

    def __init__(self, bundle: Bundle, stub: RecognitionServiceStub) -> None:
        from edge_encoder.detector import open_detector
        from edge_encoder.faces import FaceEncoder

        self.bundle_id = bundle.bundle_id
        self._expressions = bundle.manifest.expressions
        self._codec = bundle.codec()
        self._encoder = FaceEncoder(open_detector(), bundle)
        self._stub = stub

    def recognised(self, path: Path) -> Iterator[dict[str, Any]]:
        """The values of one line for each face. Raises SourceError, NoFaceError."""
        from mien.messages.results import ChunkResult
        from mien.v1.recognition_pb2 import RecognizeRequest

        faces = self._encoder.encode_still(read_image(path))
        if not faces:
            raise NoFaceError(f"{path}: no face was found")
        for start in range(0, len(faces), _CHUNK_FACES):
            chunk = faces[start : start + _CHUNK_FACES]
            payload = self._codec.encode(chunk)
            request = RecognizeRequest(payloads=[payload])
            response = self._stub.Recognize(request, timeout=_DEADLINE_S)
            share = round(len(payload) / len(chunk), 2)
            for line in self._lines(ChunkResult.from_proto(response.results[0])):
                yield {**line, "payload_bytes": share}

    def _lines(self, result: ChunkResult) -> Iterator[dict[str, Any]]:
        if result.error is not None:
            yield {"error": {"code": result.error.code, "message": result.error.message}}
        for face in result.recognitions:
            yield {
                "face": face.track_id,
                "box": [face.box.x, face.box.y, face.box.width, face.box.height],
                "expression": face.expression,
                "probability": face.probability,
                "probabilities": dict(zip(self._expressions, face.probabilities, strict=True)),
            }
