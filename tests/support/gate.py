"""A recognizer whose batches a test holds and counts."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.bitstream import EncodedFace, Limits
from mien.bundle import Bundle
from mien.errors import BitstreamError


class Gate:
    """Stands before the classifier of every model: `batches` are the payloads that came to it.

    For a recognizer with one worker. While the gate is closed, a batch waits at it.
    """

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self._decoded: list[bytes] = []
        self._open = threading.Event()

    def load(self, bundle: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        """The model, before which the gate stands once it has been proven without it."""
        model = ExpressionModel(bundle, options, limits)
        self._stand_before(model)
        return model

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
        decode, prove = model.codec.decode_chunks, model.prove

        def noting_decode(
            payloads: Sequence[bytes],
        ) -> list[tuple[EncodedFace, ...] | BitstreamError]:
            self._decoded += payloads
            return decode(payloads)

        def proving() -> float:
            difference = prove()
            classify = model.classify
            model.codec.decode_chunks = noting_decode  # type: ignore[method-assign]

            def held_classify(
                symbols: NDArray[np.int32], level: NDArray[np.int32]
            ) -> NDArray[np.float32]:
                self.batches.append(self._decoded)
                self._decoded = []
                if not self._open.wait(60):
                    raise TimeoutError("the test left its gate closed")
                return classify(symbols, level)

            model.classify = held_classify  # type: ignore[method-assign]
            return difference

        model.prove = proving  # type: ignore[method-assign]
