"""A consumer of WatchRecognitions that goes on after every break with its resume token.

python -m tests.support.consumer ADDRESS TOKEN [CA CERTIFICATE KEY] says each chunk as a JSON line.
It is a process of its own, so that it can be in another network than the test, and cannot be held
up by it.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mien.cli.resuming import watching
from mien.cli.security import Security
from mien.tls import TlsFiles
from mien.v1.recognition_pb2 import WatchRecognitionsRequest
from tests.support.followed import Event, Followed, followed

GIVE_UP_S = 900.0

Face = tuple[str, int, int, int]
"""Device, epoch, seq and index: what a consumer knows a face by."""


class Consumer:
    """What a consumer has seen. It can go away for a while, and goes on where it was."""

    def __init__(
        self, address: str, log: Path, stack: ExitStack, files: TlsFiles | None = None
    ) -> None:
        self._address = address
        self._files = files
        self._log = log
        self._stack = stack
        self._runs: list[Followed] = []
        self._start("")

    def _start(self, token: str) -> None:
        log = self._log.with_suffix(f".{len(self._runs)}.log")
        arguments = [self._address, token, *map(str, self._files.paths if self._files else ())]
        run = followed("consumer", "tests.support.consumer", arguments, log)
        self._runs.append(self._stack.enter_context(run))

    @property
    def chunks(self) -> list[Event]:
        """Every chunk that it was sent, in order."""
        return [event for run in self._runs for event in run.named("chunk")]

    @property
    def seen(self) -> Counter[Face]:
        """Face → how often it came."""
        return Counter(
            (event["device_id"], event["epoch"], event["seq"], index)
            for event in self.chunks
            for index in event["indices"]
        )

    @property
    def missed(self) -> int:
        """Faces that the recognizer says this consumer was too slow for."""
        missed = before = 0
        for event in self.chunks:
            # Each call counts anew.
            missed += event["dropped"] - (before if event["dropped"] >= before else 0)
            before = event["dropped"]
        return missed

    def first_after(self, moment_s: float) -> float | None:
        """When the first chunk after a moment came, None while there is none."""
        return self._runs[-1].first_after(moment_s, "chunk")

    def last_words(self) -> str:
        return self._runs[-1].child.last_words()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Killed, and started again with the token of the last chunk that it has seen."""
        process = self._runs[-1].child.process
        process.kill()
        process.wait()
        self._runs[-1].join()
        yield
        self._start(self.chunks[-1]["token"])


@contextmanager
def consuming(address: str, log: Path, files: TlsFiles | None = None) -> Iterator[Consumer]:
    """Watch every device until the context ends. files: None for plaintext."""
    with ExitStack() as stack:
        yield Consumer(address, log, stack, files)


def _main(address: str, token: str, *paths: str) -> None:
    request = WatchRecognitionsRequest(resume_token=bytes.fromhex(token))
    security = Security(TlsFiles(*map(Path, paths)) if paths else None, insecure=not paths)
    for response in watching(address, request, GIVE_UP_S, security):
        chunk = {
            "event": "chunk",
            "device_id": response.device_id,
            "epoch": response.epoch,
            "seq": response.seq,
            "indices": [face.index for face in response.recognitions],
            "dropped": response.dropped,
            "token": response.resume_token.hex(),
        }
        sys.stdout.write(json.dumps(chunk) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])
