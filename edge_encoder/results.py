"""What the command says on the way: one JSON object a line, flushed as it comes."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from edge_encoder.chunker import Chunk
from mien.errors import ConfigError
from mien.messages.results import ChunkResult
from mien.messages.upward import Hello


class ResultWriter:
    """Writes the events of one run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, event: str, /, **fields: Any) -> None:
        """One line. Raises BrokenPipeError when nobody reads any more."""
        self._stream.write(json.dumps({"event": event, **fields}) + "\n")
        self._stream.flush()

    def write_recognitions(
        self, chunk: Chunk, result: ChunkResult, expressions: tuple[str, ...]
    ) -> int:
        """A line for each recognised face of a chunk; returns how many."""
        written = 0
        for face in result.recognitions:
            if face.index >= len(chunk.frames):
                continue
            frame, box = chunk.frames[face.index], face.box
            self.write(
                "recognition",
                frame=frame.index,
                t_s=round(frame.t_s, 6),
                track_id=face.track_id,
                box=[box.x, box.y, box.width, box.height],
                expression=face.expression,
                probability=round(face.probability, 6),
                probabilities={
                    name: round(probability, 6)
                    for name, probability in zip(expressions, face.probabilities, strict=False)
                },
                chunk_bytes=len(chunk.payload),
                chunk_faces=len(chunk.frames),
            )
            written += 1
        return written

    def write_late(self, hello: Hello, chunk: Chunk, result: ChunkResult) -> int:
        """A line for each recognised face of an earlier run's chunk; returns how many.

        Without all the probabilities: their names are those of that run's bundle.
        """
        for face in result.recognitions:
            box = face.box
            self.write(
                "late_recognition",
                epoch=hello.epoch,
                unix_ms=hello.epoch_start_unix_ms + face.time_ms,
                track_id=face.track_id,
                box=[box.x, box.y, box.width, box.height],
                expression=face.expression,
                probability=round(face.probability, 6),
                chunk_bytes=len(chunk.payload),
            )
        return len(result.recognitions)


@contextmanager
def open_results(target: str) -> Iterator[ResultWriter]:
    """'-' for standard output, else a file, which is overwritten. Raises ConfigError."""
    if target == "-":
        yield ResultWriter(sys.stdout)
        return
    try:
        stream = Path(target).open("w", encoding="utf-8")  # noqa: SIM115  # entered below
    except OSError as error:
        raise ConfigError(f"results: {target} cannot be written: {error.strerror}") from error
    with stream:
        yield ResultWriter(stream)
