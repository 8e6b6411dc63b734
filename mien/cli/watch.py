"""`mien watch`: the recognitions of a running recognizer, as they are made."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mien.cli.security import PLAIN, Security
from mien.cli.tally import bar
from mien.exit_codes import ExitCode

if TYPE_CHECKING:
    from mien.messages.results import Recognition
    from mien.messages.watched import WatchedChunk
    from mien.v1.recognition_pb2 import WatchRecognitionsResponse


@dataclass(frozen=True)
class WatchOptions:
    """`mien watch`, as typed. Empty filters let everything through; limit 0 has no end."""

    server: str
    devices: Sequence[str] = ()
    tracks: Sequence[int] = ()
    as_json: bool = False
    limit: int = 0
    give_up_s: float = 60.0
    security: Security = PLAIN


def watch(options: WatchOptions) -> ExitCode:
    """Print until the recognizer stays away, the limit is reached or Ctrl-C is pressed.

    Raises UnavailableError and RefusedError.
    """
    from mien.cli.resuming import watching
    from mien.v1 import recognition_pb2

    request = recognition_pb2.WatchRecognitionsRequest(
        device_ids=options.devices, track_ids=options.tracks
    )
    print(f"watching {options.server}; Ctrl-C ends it", file=sys.stderr, flush=True)
    with closing(
        watching(options.server, request, options.give_up_s, options.security)
    ) as responses:
        for count, (seen, face) in enumerate(_faces(responses), start=1):
            print(json_line(seen, face) if options.as_json else text_line(seen, face), flush=True)
            if count == options.limit:
                break
    return ExitCode.OK


def _faces(
    responses: Iterable[WatchRecognitionsResponse],
) -> Iterator[tuple[WatchedChunk, Recognition]]:
    from mien.messages.watched import WatchedChunk

    for response in responses:
        seen = WatchedChunk.from_proto(response)
        for face in seen.recognitions:
            yield seen, face


def json_line(seen: WatchedChunk, face: Recognition) -> str:
    """One JSON object with everything that the recognizer said of the face.

    time: null where it is none that a calendar has.
    """
    when = _when(seen, face)
    document = {
        "device_id": seen.device_id,
        "time": when.isoformat(timespec="milliseconds") if when else None,
        "track_id": face.track_id,
        "box": [face.box.x, face.box.y, face.box.width, face.box.height],
        "expression": face.expression,
        "probability": face.probability,
        "probabilities": dict(zip(seen.expressions, face.probabilities, strict=True)),
        "bundle_id": seen.bundle_id,
        "dropped": seen.dropped,
    }
    return json.dumps(document)


def text_line(seen: WatchedChunk, face: Recognition) -> str:
    """One line for people."""
    when = _when(seen, face)
    clock = f"{when:%H:%M:%S}.{when.microsecond // 1000:03d}" if when else "--:--:--.---"
    lost = f"  ({seen.dropped} lost: this terminal is too slow)" if seen.dropped else ""
    return (
        f"{clock}  {seen.device_id}"
        f"  face {face.track_id:<3} {face.expression:<10} {face.probability:4.0%}"
        f" {bar(face.probability, 10)}{lost}".rstrip()
    )


def _when(seen: WatchedChunk, face: Recognition) -> datetime | None:
    unix_ms = seen.epoch_start_unix_ms + face.time_ms
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # an older recognizer takes any from a device
        return None
