"""Messages to protobuf and back; and what a client may not send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.bitstream import Box
from mien.declaration import ContextOfUse, LegalException
from mien.errors import ProtocolError
from mien.messages.downward import (
    Acknowledgement,
    Credits,
    Downward,
    Drain,
    RequestLayers,
    Settled,
    UseBundle,
    Welcome,
    downward_from_proto,
    downward_to_proto,
)
from mien.messages.labels import FaceLabel, LabelResult, LabelStatus
from mien.messages.results import ChunkResult, ItemError, ItemStatus, Recognition
from mien.messages.upward import (
    MAX_LATENCY_MS,
    MAX_UNIX_MS,
    EncodedChunk,
    Hello,
    upward_from_proto,
    upward_to_proto,
)
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
bundle_ids = st.text("0123456789abcdef", min_size=64, max_size=64)
words = st.text(max_size=20)
float32 = st.floats(0, 1, width=32)
device_ids = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)

hellos = st.builds(
    Hello,
    device_ids,
    u64,
    st.integers(0, MAX_UNIX_MS),
    st.lists(bundle_ids, max_size=3).map(tuple),
    st.text(max_size=500),
    st.text(max_size=500),
    st.integers(0, MAX_LATENCY_MS),
    st.booleans(),
    context=st.sampled_from(ContextOfUse),
    exception=st.sampled_from(LegalException),
)
chunks = st.builds(EncodedChunk, st.integers(1, 2**64 - 1), st.binary(max_size=50))
boxes = st.builds(Box, i32, i32, i32, i32)
recognitions = st.builds(
    Recognition, u32, i64, u64, boxes, words, float32, st.lists(float32, max_size=8).map(tuple)
)
results = st.builds(
    ChunkResult,
    u64,
    st.sampled_from(ItemStatus),
    bundle_ids,
    st.lists(recognitions, max_size=3).map(tuple),
    st.none() | st.builds(ItemError, words, words),
)
downward = (
    st.builds(Welcome, bundle_ids, u64, u32, u32, u32, u32)
    | st.builds(Acknowledgement, u64)
    | st.builds(Credits, u32)
    | st.builds(Drain, u32)
    | st.builds(UseBundle, words)
    | st.just(RequestLayers())
    | st.builds(Settled, st.lists(results, max_size=3).map(tuple), u64, u32)
    | results
)


@given(hellos | chunks)
def test_what_a_device_sends_arrives_as_it_was(message: Hello | EncodedChunk) -> None:
    wire = upward_to_proto(message).SerializeToString()
    assert upward_from_proto(pb.StreamFacesRequest.FromString(wire)) == message


@given(downward)
def test_what_the_server_sends_arrives_as_it_was(
    message: Downward,
) -> None:
    wire = downward_to_proto(message).SerializeToString()
    assert downward_from_proto(pb.StreamFacesResponse.FromString(wire)) == message


@given(
    st.builds(
        WatchedChunk,
        words,
        u64,
        u64,
        i64,
        bundle_ids,
        st.lists(recognitions, max_size=3).map(tuple),
        st.lists(words, max_size=8).map(tuple),
        u64,
    )
)
def test_a_watched_chunk_arrives_as_it_was(message: WatchedChunk) -> None:
    wire = message.to_proto().SerializeToString()
    assert WatchedChunk.from_proto(pb.WatchRecognitionsResponse.FromString(wire)) == message


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Hello(), "device_id"),
        (pb.Hello(device_id="d" * 65), "device_id"),
        (pb.Hello(device_id="front door"), "device_id"),
        (pb.Hello(device_id="door\n"), "device_id"),
        (pb.Hello(device_id="d", bundle_ids=["A" * 64]), "bundle_ids"),
        (pb.Hello(device_id="d", bundle_ids=["a" * 63]), "bundle_ids"),
        (pb.Hello(device_id="d", bundle_ids=["a" * 64] * 65), "bundle_ids"),
        (pb.Hello(device_id="d", purpose="p" * 501), "purpose"),
        (pb.Hello(device_id="d", notice="n" * 501), "notice"),
        # Open enums: a newer device may say what this version has no word for.
        (pb.Hello(device_id="d", context=pb.ContextOfUse.ValueType(99)), "context"),
        (pb.Hello(device_id="d", exception=pb.LegalException.ValueType(99)), "exception"),
        (pb.Hello(device_id="d", max_latency_ms=3_600_001), "max_latency_ms"),
        (pb.Hello(device_id="d", epoch_start_unix_ms=-1), "epoch_start_unix_ms"),
        (pb.Hello(device_id="d", epoch_start_unix_ms=MAX_UNIX_MS + 1), "epoch_start_unix_ms"),
        (pb.Hello(device_id="d", epoch_start_unix_ms=2**63 - 1), "epoch_start_unix_ms"),
    ],
)
def test_a_hello_out_of_range_is_refused_by_field(message: pb.Hello, field: str) -> None:
    with pytest.raises(ProtocolError, match=rf"hello\.{field}"):
        upward_from_proto(pb.StreamFacesRequest(hello=message))


def test_a_chunk_without_a_sequence_number_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"chunk\.seq"):
        upward_from_proto(pb.StreamFacesRequest(chunk=pb.EncodedChunk(payload=b"x")))


def test_an_unknown_status_is_refused_and_an_unknown_message_is_ignored() -> None:
    with pytest.raises(ProtocolError, match=r"result\.status"):
        downward_from_proto(pb.StreamFacesResponse(result=pb.ChunkResult(seq=1)))
    assert downward_from_proto(pb.StreamFacesResponse()) is None


labels = st.builds(
    FaceLabel,
    device_ids,
    u64,
    st.integers(1, 2**64 - 1),
    u32,
    st.text(min_size=1, max_size=64),
)
label_results = st.builds(LabelResult, st.sampled_from(LabelStatus)) | st.builds(
    LabelResult, st.just(LabelStatus.UNKNOWN), st.builds(ItemError, words, words)
)


@given(labels)
def test_a_label_comes_back_as_it_went(label: FaceLabel) -> None:
    wire = label.to_proto().SerializeToString()
    assert FaceLabel.from_proto(pb.FaceLabel.FromString(wire)) == label


@given(label_results)
def test_what_became_of_a_label_comes_back_as_it_went(result: LabelResult) -> None:
    wire = result.to_proto().SerializeToString()
    assert LabelResult.from_proto(pb.LabelResult.FromString(wire)) == result


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device_id", ""),
        ("device_id", "a/b"),
        ("device_id", "x" * 65),
        ("seq", 0),
        ("expression", ""),
        ("expression", "x" * 65),
    ],
)
def test_a_label_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    label = pb.FaceLabel(device_id="door", epoch=1, seq=1, index=0, expression="neutral")
    setattr(label, field, value)
    with pytest.raises(ProtocolError, match=f"^label.{field}"):
        FaceLabel.from_proto(label)


def test_an_unknown_label_status_is_refused() -> None:
    with pytest.raises(ProtocolError, match="status"):
        LabelResult.from_proto(pb.LabelResult())
