"""A recognizer whose batches a test holds and counts."""

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud_recognizer.model import ExpressionModel, Models, RuntimeOptions, load_models
from mien.bitstream import EncodedFace, Limits


class Gate:
    """Stands before the classifier of every model: `batches` are the payloads that came to it.

    For a recognizer with one worker. While the gate is closed, a batch waits at it.
    """

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self._decoded: list[bytes] = []
        self._open = threading.Event()

    def load(self, bundles: Path, options: RuntimeOptions, limits: Limits) -> Models:
        """As load_models, once the models have been proven without the gate."""
        models = load_models(bundles, options, limits)
        for model in models:
            self._stand_before(model)
        return models

    def open(self) -> None:
        """Let every batch through, that which waits and those to come."""
        self._open.set()

    def close(self) -> None:
        """Hold the next batch."""
        self._open.clear()

    def batch_of(self, payload: bytes) -> int:
        """The number of the batch, from 0, in which a payload came."""
        (number,) = [n for n, batch in enumerate(self.batches) if payload in batch]
        return number

    def _stand_before(self, model: ExpressionModel) -> None:
        decode, prove = model.codec.decode, model.prove

        def noting_decode(payload: bytes) -> tuple[EncodedFace, ...]:
            self._decoded.append(payload)
            return decode(payload)

        def proving() -> float:
            difference = prove()
            classify = model.classify
            model.codec.decode = noting_decode  # type: ignore[method-assign]

            def held_classify(symbols: NDArray[np.int32]) -> NDArray[np.float32]:
                self.batches.append(self._decoded)
                self._decoded = []
                if not self._open.wait(60):
                    raise TimeoutError("the test left its gate closed")
                return classify(symbols)

            model.classify = held_classify  # type: ignore[method-assign]
            return difference

        model.prove = proving  # type: ignore[method-assign]
