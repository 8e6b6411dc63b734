"""Bytes that are no message, where one of a stream is expected."""

import logging

import grpc
import pytest

from mien.bundle import Bundle
from mien.messages.upward import upward_to_proto
from tests.support.recognizer import RPC_TIMEOUT_S, hello, running_recognizer

NO_MESSAGE = (b"\xff\xff\xff", b"\x0a\x04\x0a\x02\xff\xfe")  # no wire format; a text of no UTF-8


@pytest.mark.parametrize("data", NO_MESSAGE)
@pytest.mark.parametrize("welcomed", [False, True])
async def test_bytes_that_are_no_message_end_their_stream_as_a_broken_contract(
    bundle: Bundle, data: bytes, welcomed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_recognizer(bundle.folder) as running:
        path = "/mien.v1.RecognitionService/StreamFaces"
        call = running.channel.stream_stream(path)(timeout=RPC_TIMEOUT_S)
        if welcomed:
            await call.write(upward_to_proto(hello(bundle)).SerializeToString())
            assert await call.read() is not grpc.aio.EOF
        await call.write(data)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert running.sample("rpc_errors_total", code="protocol") == 1
        assert running.sample("rpc_errors_total", code="internal") == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
