"""What one would build instead: JPEG faces in unary gRPC calls, a pixel classifier in ONNX Runtime.

    call ─▶ queue ─▶ a worker takes what waits, up to a batch ─▶ cv2 decodes, the network answers

The same frameworks and the same care as the recognizer's: an event loop for the calls, two threads
that compute batches, ONNX Runtime with one thread each and no spinning. A request is seq and JPEG
file, the answer an expression with all probabilities; no box, track or time has to be carried.

    python -m benchmarks.jpeg_service --bundle FOLDER [--host ADDRESS]
"""

import argparse
import asyncio
import json
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np

from benchmarks.jpeg import PIXEL_FILE, decode, open_session
from mien.bundle import Bundle, load_bundle
from mien.v1 import recognition_pb2 as pb

METHOD: Final = "/jpeg.v1.JpegRecognition/Recognize"
WORKERS: Final = 2
# Larger ones are no faster, and let the first face wait longer.
MAX_BATCH: Final = 64
MAX_WAITING: Final = 8192
# As the recognizer has it, for the bytes of a device; it is on by default.
OPTIONS: Final = (("grpc.http2.bdp_probe", 0),)

Waiting = tuple[bytes, "asyncio.Future[pb.Recognition | None]"]


class JpegRecognizer:
    """Answers calls in batches. An async context manager."""

    def __init__(self, bundle: Bundle) -> None:
        self._expressions = bundle.manifest.expressions
        image = bundle.manifest.image
        self._shape = (image.height, image.width)
        self._session = open_session(bundle.path(PIXEL_FILE))
        self._input = self._session.get_inputs()[0].name
        self._waiting: deque[Waiting] = deque()
        self._some = asyncio.Event()

    async def __aenter__(self) -> "JpegRecognizer":
        self._threads = ThreadPoolExecutor(WORKERS)
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._threads.shutdown()

    async def recognise(self, request: pb.EncodedChunk, context: Any) -> pb.Recognition:
        """One call: one face."""
        if len(self._waiting) >= MAX_WAITING:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many faces wait")
        answer: asyncio.Future[pb.Recognition | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((request.payload, answer))
        self._some.set()
        recognition = await answer
        if recognition is None:
            height, width = self._shape
            problem = f"expected a JPEG file of {width}×{height} pixels"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        return recognition

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            if not self._waiting:
                self._some.clear()
            files = [file for file, _ in batch]
            answers = await loop.run_in_executor(self._threads, self._compute, files)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _compute(self, files: list[bytes]) -> list[pb.Recognition | None]:
        images = [decode(file) for file in files]
        faces = [image for image in images if image is not None and image.shape == self._shape]
        if not faces:
            return [None] * len(files)
        rows = iter(self._session.run(None, {self._input: np.stack(faces)[:, None]})[0])
        return [
            None
            if image is None or image.shape != self._shape
            else self._answer(next(rows).tolist())
            for image in images
        ]

    def _answer(self, row: list[float]) -> pb.Recognition:
        top = max(range(len(row)), key=row.__getitem__)
        expression = self._expressions[top]
        return pb.Recognition(expression=expression, probability=row[top], probabilities=row)


async def serve(folder: Path, host: str) -> None:
    """Serve until SIGTERM; a JSON line on stdout says on which port."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with JpegRecognizer(load_bundle(folder, (PIXEL_FILE,))) as recognizer:
        handler = grpc.unary_unary_rpc_method_handler(
            recognizer.recognise,
            request_deserializer=pb.EncodedChunk.FromString,
            response_serializer=pb.Recognition.SerializeToString,
        )
        service, method = METHOD.strip("/").split("/")
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        port = server.add_insecure_port(f"{host}:0")
        await server.start()
        print(json.dumps({"event": "serving", "port": port}), flush=True)
        await stop.wait()
        await server.stop(1.0)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser("python -m benchmarks.jpeg_service", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    asyncio.run(serve(options.bundle, options.host))


if __name__ == "__main__":
    main()
