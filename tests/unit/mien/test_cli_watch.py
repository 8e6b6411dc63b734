"""`mien watch` against a real server that says what it is told to."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from mien.cli.main import main
from mien.v1 import recognition_pb2 as pb
from mien.v1 import recognition_pb2_grpc

NAMES = ("neutral", "happiness", "surprise")


class Recognizer(recognition_pb2_grpc.RecognitionServiceServicer):
    """Answers a watcher with `count` chunks of `faces` each, and then ends the call with `code`."""

    def __init__(
        self, count: int, code: grpc.StatusCode, faces: int = 1, start_ms: int = 1_700_000_000_000
    ) -> None:
        self.requests: list[pb.WatchRecognitionsRequest] = []
        self._count = count
        self._code = code
        self._faces = faces
        self._start_ms = start_ms

    def WatchRecognitions(  # noqa: N802 -- gRPC's name
        self, request: pb.WatchRecognitionsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRecognitionsResponse]:
        self.requests.append(request)
        for number in range(self._count):
            yield pb.WatchRecognitionsResponse(
                device_id="door",
                epoch_start_unix_ms=self._start_ms,
                expressions=NAMES,
                dropped=number,
                recognitions=[
                    pb.Recognition(
                        index=face,
                        time_ms=250 * number,
                        track_id=7 + face,
                        box=pb.Box(x=-1, y=2, width=30, height=40),
                        expression="surprise",
                        probability=0.75,
                        probabilities=[0.125, 0.125, 0.75],
                    )
                    for face in range(self._faces)
                ],
            )
        if self._code is not grpc.StatusCode.OK:
            context.abort(self._code, "because of the test")


@contextmanager
def running(recognizer: recognition_pb2_grpc.RecognitionServiceServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(recognizer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_each_recognition_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    recognizer = Recognizer(2, grpc.StatusCode.OK)
    with running(recognizer) as address:
        assert main(["watch", "--server", address, "--json", "--device", "door"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["expression"] == "surprise"
    assert first["probabilities"] == {"neutral": 0.125, "happiness": 0.125, "surprise": 0.75}
    assert first["box"] == [-1, 2, 30, 40]
    assert first["time"] == "2023-11-14T22:13:20.000+00:00"
    assert second["time"] == "2023-11-14T22:13:20.250+00:00"
    assert list(recognizer.requests[0].device_ids) == ["door"]


def test_a_line_for_people_says_who_what_and_how_sure(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Recognizer(2, grpc.StatusCode.OK)) as address:
        main(["watch", "--server", address, "--track", "7"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["22:13:20.000", "door", "face", "7", "surprise", "75%", "███████▌"]
    assert "1 lost" in second


@pytest.mark.parametrize("start_ms", [2**63 - 1, -(2**63)])
def test_a_time_that_no_calendar_has_ends_no_watch(
    capsys: pytest.CaptureFixture[str], start_ms: int
) -> None:
    recognizer = Recognizer(2, grpc.StatusCode.OK, start_ms=start_ms)
    with running(recognizer) as address:
        assert main(["watch", "--server", address, "--json"]) == 0
        times = [json.loads(line)["time"] for line in capsys.readouterr().out.splitlines()]
        assert main(["watch", "--server", address]) == 0
        lines = capsys.readouterr().out.splitlines()
    assert times == [None, None]
    assert [line.split()[:2] for line in lines] == [["--:--:--.---", "door"]] * 2


def test_every_face_of_a_chunk_has_its_line_and_the_limit_counts_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running(Recognizer(1000, grpc.StatusCode.OK, faces=2)) as address:
        assert main(["watch", "--server", address, "--json", "--limit", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["track_id"], line["dropped"]) for line in lines] == [(7, 0), (8, 0), (7, 1)]


def test_the_limit_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Recognizer(1000, grpc.StatusCode.OK)) as address:
        assert main(["watch", "--server", address, "--limit", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


class Breaking(recognition_pb2_grpc.RecognitionServiceServicer):
    """Answers call after call as it is told: numbers of chunks, and how the call ends."""

    def __init__(self, *calls: tuple[list[int], grpc.StatusCode]) -> None:
        self.tokens: list[bytes] = []
        self._calls = list(calls)

    def WatchRecognitions(  # noqa: N802 -- gRPC's name
        self, request: pb.WatchRecognitionsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRecognitionsResponse]:
        self.tokens.append(request.resume_token)
        numbers, code = self._calls.pop(0)
        for number in numbers:
            face = pb.Recognition(track_id=number, box=pb.Box(width=1, height=1))
            token = b"token %d" % number
            yield pb.WatchRecognitionsResponse(recognitions=[face], resume_token=token)
        if code is not grpc.StatusCode.OK:
            context.abort(code, "because of the test")


@pytest.mark.parametrize(
    "broken", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED]
)
def test_a_broken_connection_is_made_again_with_the_last_token(
    capsys: pytest.CaptureFixture[str], broken: grpc.StatusCode
) -> None:
    recognizer = Breaking(([1, 2], broken), ([], broken), ([3], broken), ([4], grpc.StatusCode.OK))
    with running(recognizer) as address:
        assert main(["watch", "--server", address, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["track_id"] for line in lines] == [1, 2, 3, 4]
    assert recognizer.tokens == [b"", b"token 2", b"token 2", b"token 3"]


def test_what_cannot_be_resumed_is_said_and_watched_from_now_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recognizer = Breaking(
        ([1], grpc.StatusCode.UNAVAILABLE),
        ([], grpc.StatusCode.OUT_OF_RANGE),
        ([9], grpc.StatusCode.OK),
    )
    with running(recognizer) as address:
        assert main(["watch", "--server", address]) == 0
    assert recognizer.tokens == [b"", b"token 1", b""]
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "may be missing" in printed.err


def test_a_server_that_stays_away_is_exit_code_4(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.cli.server._CONNECT_S", 2.0)
    unavailable = grpc.StatusCode.UNAVAILABLE
    recognizer = Breaking(*[([], unavailable)] * 1000)
    with running(recognizer) as address:
        assert main(["watch", "--server", address, "--give_up_s", "0"]) == 4
    assert "went away: because of the test" in capsys.readouterr().err
    assert len(recognizer.tokens) == 1


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED]
)
def test_a_refusal_is_said_in_the_servers_words_at_once(
    capsys: pytest.CaptureFixture[str], code: grpc.StatusCode
) -> None:
    recognizer = Recognizer(0, code)
    with running(recognizer) as address:
        assert main(["watch", "--server", address]) == 1
    assert f"{code.name}): because of the test" in capsys.readouterr().err
    assert len(recognizer.requests) == 1


def test_no_server_at_all_is_exit_code_4(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.cli.server._CONNECT_S", 0.2)
    with running(Recognizer(0, grpc.StatusCode.OK)) as address:
        pass
    assert main(["watch", "--server", address]) == 4
    assert address in capsys.readouterr().err
