"""How right the answers are: estimated without labels, and measured where people give some.

DeviceStream, Recognize ─observe─▶ SlidingWindow of (bundle, group) ─▶ AccuracyCollector
Hub ─remember─▶ RecentAnswers ◀─report─ ReportLabels ─▶ the same windows

What is estimated is what this recognizer has answered; what can be labelled is what any recognizer
of its hub has published, for a label may come to any of them.
Labels of metrics are bounded: bundles in memory × groups of the operator's. No device id is one.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from cloud_recognizer.accuracy.device_groups import CALLS, DeviceGroups
from cloud_recognizer.accuracy.recent_answers import Answer, AnsweredChunk, ChunkKey, RecentAnswers
from cloud_recognizer.accuracy.sliding_window import SlidingWindow, Summary
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.metrics import ANSWERS_FULL, Metrics
from cloud_recognizer.model import ExpressionModel
from mien.background import background
from mien.calibration import confidence
from mien.errors import LabelsDisabledError, MienError, UnknownExpressionError, UnknownFaceError
from mien.messages.labels import FaceLabel, LabelResult, LabelStatus
from mien.messages.results import ChunkResult, ItemError, Recognition
from mien.messages.upward import Hello
from mien.messages.watched import WatchedChunk

# Answers are forgotten by a task that looks no more often than this.
LEAST_WAIT_S = 0.05


@dataclass(slots=True)
class _Track:
    window: SlidingWindow
    labelled: int = 0
    agreed: int = 0


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """A bundle's and a group's figures; labelled and agreed since the bundle came into memory."""

    bundle_id: str
    group: str
    window: Summary
    labelled: int
    agreed: int


class Accuracy:
    """Fed on the event loop; `figures` may be asked from another thread. clock: seconds."""

    def __init__(
        self,
        config: CloudConfig,
        catalogue: Catalogue,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._catalogue = catalogue
        self._metrics = metrics
        self._clock = clock
        self._groups = DeviceGroups(config.device_groups)
        self._lock = threading.Lock()  # the scrape's thread reads what the event loop counts
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._recent: RecentAnswers | None = None
        if config.label_window_s > 0:
            self._recent = RecentAnswers(
                config.label_window_s, config.label_faces, metrics.dropped.labels(ANSWERS_FULL)
            )

    @property
    def window_s(self) -> float:
        """Seconds that the figures are of."""
        return self._config.accuracy_window_s

    def running(self) -> AbstractAsyncContextManager[None]:
        """Forget answers in time while the context lasts, whether or not others come."""
        return background(self._expire(), "recent answers")

    async def _expire(self) -> None:
        while self._recent is not None:
            left_s = self._recent.expire(self._clock())
            await asyncio.sleep(max(left_s, LEAST_WAIT_S))

    def observe(self, hello: Hello | None, result: ChunkResult) -> None:
        """Count a settled chunk; hello is of the device's stream, None for a Recognize call."""
        model = self._catalogue.in_memory.get(result.bundle_id)
        if model is None or not result.recognitions:
            return
        answers = _answers(model, result.recognitions)
        group = CALLS if hello is None else self._groups.of(hello.device_id)
        now_s = self._clock()
        with self._lock:
            window = self._track(model, group).window
            for answer in answers:
                top = model.expressions.index(answer.expression)
                window.add(now_s, top, answer.confidence)

    def remember(self, chunk: WatchedChunk, age_s: float) -> None:
        """Keep what was published `age_s` seconds ago, by whichever recognizer, for labels."""
        model = self._catalogue.in_memory.get(chunk.bundle_id)
        if self._recent is None or model is None or not _fits(model, chunk.recognitions):
            return
        key = ChunkKey(chunk.device_id, chunk.epoch, chunk.seq)
        group = self._groups.of(chunk.device_id)
        answers = _answers(model, chunk.recognitions)
        answered_s = self._clock() - age_s
        self._recent.keep(answered_s, key, model.bundle_id, group, model.expressions, answers)

    def report(self, labels: Sequence[FaceLabel]) -> list[LabelResult]:
        """Compare people's labels with the answers, count them, and forget those answers.

        Raises LabelsDisabledError while no answers are remembered.
        """
        if self._recent is None:
            raise LabelsDisabledError(
                "this server remembers no answers; its operator can set label_window_s"
            )
        return [self._reported(label, self._recent) for label in labels]

    def _reported(self, label: FaceLabel, recent: RecentAnswers) -> LabelResult:
        now_s = self._clock()
        chunk = recent.of(now_s, ChunkKey(label.device_id, label.epoch, label.seq))
        error = None
        try:
            status = self._compared(now_s, label, chunk)
        except MienError as problem:
            status, error = LabelStatus.UNKNOWN, ItemError(problem.code, str(problem))
        self._metrics.labels.labels(status.name.lower()).inc()
        return LabelResult(status, error)

    def _compared(self, now_s: float, label: FaceLabel, chunk: AnsweredChunk | None) -> LabelStatus:
        answer = None
        if chunk is not None and label.index < len(chunk.answers):
            answer = chunk.answers[label.index]
        if chunk is None or answer is None:
            raise UnknownFaceError(
                "no answer to this face is remembered: it was not recognised here, or more than "
                f"{self._config.label_window_s:g} seconds ago, or it has its label already"
            )
        if label.expression not in chunk.expressions:
            raise UnknownExpressionError(
                f"the bundle that answered has {', '.join(chunk.expressions)}, "
                f"got {label.expression!r}"
            )
        chunk.answers[label.index] = None
        agreed = label.expression == answer.expression
        model = self._catalogue.in_memory.get(chunk.bundle_id)
        if model is not None:
            with self._lock:
                track = self._track(model, chunk.group)
                track.labelled += 1
                track.agreed += agreed
                track.window.label(now_s, answer.confidence, agreed)
        return LabelStatus.AGREED if agreed else LabelStatus.DISAGREED

    def figures(self) -> list[GroupFigures]:
        """The figures of every bundle in memory and group that has had faces."""
        now_s = self._clock()
        with self._lock:
            self._drop_gone()
            return [
                GroupFigures(*key, track.window.summary(now_s), track.labelled, track.agreed)
                for key, track in self._tracks.items()
            ]

    def _track(self, model: ExpressionModel, group: str) -> _Track:
        key = (model.bundle_id, group)
        track = self._tracks.get(key)
        if track is None:
            self._drop_gone()
            track = self._tracks[key] = _Track(
                SlidingWindow(
                    len(model.expressions),
                    model.bundle.manifest.calibration,
                    length_s=self._config.accuracy_window_s,
                    min_faces=self._config.drift_min_faces,
                    started_s=self._clock(),
                )
            )
        return track

    def _drop_gone(self) -> None:
        models = self._catalogue.in_memory
        for key in [key for key in self._tracks if key[0] not in models]:
            del self._tracks[key]


def _answers(model: ExpressionModel, faces: Sequence[Recognition]) -> list[Answer]:
    calibration = model.bundle.manifest.calibration
    temperature = calibration.temperature if calibration else 1.0
    return [Answer(face.expression, confidence(face.probabilities, temperature)) for face in faces]


def _fits(model: ExpressionModel, faces: Sequence[Recognition]) -> bool:
    """Whether these can be answers of the model: what comes through NATS may be of anyone."""
    return all(
        len(face.probabilities) == len(model.expressions)
        and all(0 <= p <= 1 for p in face.probabilities)
        for face in faces
    )
