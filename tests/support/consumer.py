"""A consumer of WatchRecognitions that goes on after every break with its resume token.

python -m tests.support.consumer ADDRESS says each chunk as a JSON line. It is a process of its own,
so that it can be in another network than the test, and cannot be held up by it.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mien.cli.resuming import watching
from mien.v1.recognition_pb2 import WatchRecognitionsRequest
from tests.support.followed import Followed, followed

GIVE_UP_S = 900.0

Face = tuple[str, int, int, int]
"""Device, epoch, seq and index: what a consumer knows a face by."""


class Consumer:
    """What a consumer has seen."""

    def __init__(self, following: Followed) -> None:
        self.following = following

    @property
    def seen(self) -> Counter[Face]:
        """Face → how often it came."""
        return Counter(
            (event["device_id"], event["epoch"], event["seq"], index)
            for event in self.following.named("chunk")
            for index in event["indices"]
        )

    @property
    def missed(self) -> int:
        """Faces that the recognizer says this consumer was too slow for."""
        missed = before = 0
        for event in self.following.named("chunk"):
            # Each call counts anew.
            missed += event["dropped"] - (before if event["dropped"] >= before else 0)
            before = event["dropped"]
        return missed


@contextmanager
def consuming(address: str, log: Path) -> Iterator[Consumer]:
    """Watch every device until the context ends."""
    with followed("consumer", "tests.support.consumer", [address], log) as following:
        yield Consumer(following)


def _main(address: str) -> None:
    for response in watching(address, WatchRecognitionsRequest(), GIVE_UP_S):
        chunk = {
            "event": "chunk",
            "device_id": response.device_id,
            "epoch": response.epoch,
            "seq": response.seq,
            "indices": [face.index for face in response.recognitions],
            "dropped": response.dropped,
        }
        sys.stdout.write(json.dumps(chunk) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(sys.argv[1])
