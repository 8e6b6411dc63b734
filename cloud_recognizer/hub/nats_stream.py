"""The JetStream streams that recognizers share: their names, their subjects, their bounds.

STREAM exists to deliver and to let watchers resume, not to archive: messages leave it by age, and
the oldest before that where there are too many. Of each that it takes NATS itself puts the headers
into MARKS, which keeps the last of every epoch: which chunk that was, and nothing of its faces.
"""

from dataclasses import dataclass
from typing import Final

from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError

from mien.errors import ConfigError

STREAM: Final = "MIEN_RECOGNITIONS"
SUBJECTS: Final = "mien.v1.recognitions"
MARKS: Final = "MIEN_PUBLISHED"
MARK_SUBJECTS: Final = "mien.v1.published"
# How long a device or a recognizer may be away, and still be told what was published.
MARKS_S: Final = 86_400.0
# A device that resumes does so within seconds; to remember ids for longer costs memory.
_LONGEST_DUPLICATE_WINDOW_S: Final = 120.0
_SHORTEST_DUPLICATE_WINDOW_S: Final = 0.1
# JetStream's error codes (its errors.json).
_NAME_IN_USE: Final = 10058  # the name is taken, with another configuration
# A stream cannot be changed like this; more replicas than servers. Both are ServerErrors.
_REFUSALS: Final = (10052, 10074)


@dataclass(frozen=True)
class StreamSettings:
    """storage: "memory" or "file". max_s, max_chunks and max_bytes bound what is held."""

    storage: str
    replicas: int
    max_s: float
    max_chunks: int
    max_bytes: int


@dataclass(frozen=True)
class StreamPlace:
    """A stream as it was found. run: the moment of its making, in microseconds.

    Messages `first` to `last` are there; first is last + 1 when there are none.
    """

    run: int
    first: int
    last: int


def subject(device_id: str, epoch: int) -> str:
    """One subject an epoch: an id is one token, for '.' separates tokens and '=' is in no id."""
    return f"{SUBJECTS}.{device_id.replace('.', '=')}.{epoch}"


def message_id(device_id: str, epoch: int, seq: int) -> str:
    """What JetStream knows a chunk by; ':' is in no device id."""
    return f"{device_id}:{epoch}:{seq}"


def parse_message_id(text: str) -> tuple[str, int, int]:
    """Device, epoch and seq of a message id. Raises ValueError for what is none."""
    device_id, epoch, seq = text.split(":")
    return device_id, int(epoch), int(seq)


async def ensure_stream(context: JetStreamContext, settings: StreamSettings) -> StreamPlace:
    """Make both streams, or give those that are there these bounds, and look at STREAM.

    Raises ConfigError for bounds that JetStream refuses, and what nats-py raises.
    """
    await _made(context, _marks_config(settings))
    info = await _made(context, _config(settings))
    if info.created is None:
        raise ConfigError("JetStream does not say when the stream was made; is it of NATS 2?")
    last = info.state.last_seq
    first = info.state.first_seq if info.state.messages else last + 1
    return StreamPlace(int(info.created.timestamp() * 1e6), first, last)


async def _made(context: JetStreamContext, config: api.StreamConfig) -> api.StreamInfo:
    try:
        return await _added(context, config)
    except APIError as error:
        if not isinstance(error, BadRequestError) and error.err_code not in _REFUSALS:
            raise
        raise ConfigError(
            f"JetStream refuses the stream {config.name}: {error.description}. Give every "
            "recognizer the same nats_storage and nats_replicas, or delete the streams to change it"
        ) from error


async def _added(context: JetStreamContext, config: api.StreamConfig) -> api.StreamInfo:
    try:
        return await context.add_stream(config)
    except BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise
    return await context.update_stream(config)


def _config(settings: StreamSettings) -> api.StreamConfig:
    return api.StreamConfig(
        name=STREAM,
        description="Recognitions under way to those who watch",
        subjects=[f"{SUBJECTS}.*.*"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        storage=api.StorageType(settings.storage),
        num_replicas=settings.replicas,
        max_age=settings.max_s,
        max_msgs=settings.max_chunks,
        max_bytes=settings.max_bytes,
        duplicate_window=min(settings.max_s, _LONGEST_DUPLICATE_WINDOW_S),
        republish=api.RePublish(
            src=f"{SUBJECTS}.*.*",
            dest=f"{MARK_SUBJECTS}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}",
            headers_only=True,
        ),
    )


def _marks_config(settings: StreamSettings) -> api.StreamConfig:
    return api.StreamConfig(
        name=MARKS,
        description="How far the epochs of devices were published",
        subjects=[f"{MARK_SUBJECTS}.*.*"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        storage=api.StorageType(settings.storage),
        num_replicas=settings.replicas,
        max_age=MARKS_S,
        max_msgs_per_subject=1,
        max_msgs=settings.max_chunks,
        max_bytes=settings.max_bytes,
        duplicate_window=_SHORTEST_DUPLICATE_WINDOW_S,
    )
