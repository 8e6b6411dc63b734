"""How long a command's channel waits before it dials a recognizer again."""

from typing import Any

import grpc
import pytest

from mien.cli.resuming import LONGEST_WAIT_S
from mien.cli.security import OPTIONS, Security


def test_a_recognizer_that_is_back_is_dialled_within_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(grpc, "insecure_channel", lambda *arguments: made.append(arguments))
    Security().channel("127.0.0.1:50051")
    assert made == [("127.0.0.1:50051", OPTIONS)]
    # Between two attempts of a channel, and between two channels.
    waits_s = (dict(OPTIONS)["grpc.max_reconnect_backoff_ms"] / 1000, LONGEST_WAIT_S)
    assert max(waits_s) < 2
