"""Payloads to recognitions, a batch at a time, on a thread of the batcher.

The chunks of a bundle are decoded together, and a damaged one is an error of its own; the symbols
of the others go through the classifier together, one call for each bundle.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel
from mien.bitstream import EncodedFace
from mien.errors import BitstreamError, ChecksumError, LimitError
from mien.messages.results import ItemError, Recognition
from mien.tracing import Laps

if TYPE_CHECKING:  # needs mien[tracing]
    from mien.spans import Trace

Faces = tuple[EncodedFace, ...]
# Sees what a model has answered: symbols, int32 (N, C, H, W), levels, int32 (N,), and the N
# expressions.
Observe = Callable[[ExpressionModel, NDArray[np.int32], NDArray[np.int32], Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One chunk to recognise; its payload says which bundle it is of. trace: of few."""

    payload: bytes
    trace: "Trace | None" = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Recognitions, one a face, with how to read them, or why the payload was rejected."""

    bundle_id: str = ""
    recognitions: tuple[Recognition, ...] = ()
    error: ItemError | None = None
    expressions: tuple[str, ...] = ()


class Recognizer:
    """Decodes and classifies; threads may share it.

    observe: called with every answer, after it was made; it must return at once.
    """

    def __init__(self, models: Catalogue, metrics: Metrics, observe: Observe | None = None) -> None:
        self._models = models
        self._metrics = metrics
        self._observe = observe

    def refuse_oversize(self, job: Job) -> Outcome | None:
        """Reject a payload that is too long to wait in a queue; None for every other."""
        largest = self._models.limits.max_chunk_bytes
        if len(job.payload) <= largest:
            return None
        return _rejected(
            LimitError(
                f"the chunk has {len(job.payload)} bytes, at most {largest} are allowed; "
                "put fewer faces into one chunk"
            ),
        )

    def recognise(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Recognise the chunks of a batch, in order. No payload makes this raise."""
        traces = [job.trace for job in jobs if job.trace is not None]
        for trace in traces:
            trace.lap("queue")
        laps = Laps() if traces else None
        started_s = time.perf_counter()
        outcomes = [Outcome()] * len(jobs)
        decoded: dict[ExpressionModel, list[tuple[int, Faces]]] = {}
        for position, answer in enumerate(self._decode(jobs)):
            if isinstance(answer, BitstreamError):
                outcomes[position] = _rejected(answer)
            else:
                model, faces = answer
                decoded.setdefault(model, []).append((position, faces))
        self._metrics.decode_seconds.observe(time.perf_counter() - started_s)
        if laps is not None:
            laps.lap("decode")
        for model, chunks in decoded.items():
            for (position, _), recognitions in zip(
                chunks, self._classify(model, [faces for _, faces in chunks]), strict=True
            ):
                outcomes[position] = Outcome(
                    model.bundle_id, recognitions, expressions=model.expressions
                )
        if laps is not None:
            laps.lap("classify")
            for trace in traces:
                trace.lap("batch", chunks=len(jobs))
                for stage in laps.stages:
                    trace.add(stage)
        return outcomes

    def reconstruct(
        self, payload: bytes, layers: Sequence[bytes]
    ) -> tuple[Faces, list[int], NDArray[np.uint8]]:
        """The faces of one chunk, how many layers each was made with, and pictures.

        Pictures are uint8 (N, height, width). Raises BitstreamError.
        """
        (answer,) = self._decode([Job(payload)])
        if isinstance(answer, BitstreamError):
            raise answer
        model, faces = answer
        enhancements = model.layers(payload, len(faces), layers)
        shown = [0 if latent is None else len(layers) for latent in enhancements]
        return faces, shown, model.synthesise(*_latents(faces), enhancements)

    def _decode(self, jobs: Sequence[Job]) -> list[tuple[ExpressionModel, Faces] | BitstreamError]:
        """Decode a batch; what is damaged is an error of its own."""
        answers: list[tuple[ExpressionModel, Faces] | BitstreamError] = []
        untried: dict[int, tuple[ExpressionModel, ...]] = {}
        for position, job in enumerate(jobs):
            try:
                untried[position] = self._models.of_payload(job.payload)
                answers.append(BitstreamError())  # until it is decoded
            except BitstreamError as error:
                answers.append(error)
        while untried:
            for model, positions in _by_first(untried).items():
                payloads = [jobs[position].payload for position in positions]
                for position, read in zip(
                    positions, model.codec.decode_chunks(payloads), strict=True
                ):
                    answers[position] = read if isinstance(read, BitstreamError) else (model, read)
            # Where the checksum does not hold, another bundle with the same tag may be meant.
            untried = {
                position: models[1:]
                for position, models in untried.items()
                if models[1:] and isinstance(answers[position], ChecksumError)
            }
        for job, answer in zip(jobs, answers, strict=True):
            if not isinstance(answer, BitstreamError):
                self._metrics.face_bits.observe(8 * len(job.payload) / len(answer[1]))
        return answers

    def _classify(
        self, model: ExpressionModel, chunks: list[Faces]
    ) -> list[tuple[Recognition, ...]]:
        started_s = time.perf_counter()
        symbols, level = _latents([face for faces in chunks for face in faces])
        probabilities = model.classify(symbols, level)
        self._metrics.batch_faces.observe(len(probabilities))
        self._metrics.classify_seconds.observe(time.perf_counter() - started_s)
        answers: list[tuple[Recognition, ...]] = []
        start = 0
        for faces in chunks:
            rows = probabilities[start : start + len(faces)]
            answers.append(_recognitions(model.expressions, faces, rows))
            start += len(faces)
        if self._observe is not None:
            expressions = [face.expression for rows in answers for face in rows]
            self._observe(model, symbols, level, expressions)
        return answers


def _latents(faces: Sequence[EncodedFace]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    symbols = np.stack([face.symbols for face in faces])
    return symbols, np.array([face.level for face in faces], np.int32)


def _by_first(
    candidates: dict[int, tuple[ExpressionModel, ...]],
) -> dict[ExpressionModel, list[int]]:
    positions: dict[ExpressionModel, list[int]] = {}
    for position, (model, *_) in candidates.items():
        positions.setdefault(model, []).append(position)
    return positions


def _rejected(error: BitstreamError) -> Outcome:
    return Outcome(error=ItemError(error.code, str(error)))


def _recognitions(
    expressions: tuple[str, ...], faces: Faces, probabilities: NDArray[np.float32]
) -> tuple[Recognition, ...]:
    best = probabilities.argmax(axis=1).tolist()
    rows = probabilities.tolist()
    return tuple(
        Recognition(
            index=index,
            time_ms=face.time_ms,
            track_id=face.track_id,
            box=face.box,
            expression=expressions[top],
            probability=row[top],
            probabilities=tuple(row),
        )
        for index, (face, top, row) in enumerate(zip(faces, best, rows, strict=True))
    )
