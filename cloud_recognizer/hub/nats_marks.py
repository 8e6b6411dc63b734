"""Reading the stream of marks once, from its beginning to its end."""

from collections.abc import AsyncIterator
from typing import Final

from nats.js import JetStreamContext, api

from cloud_recognizer.hub.nats_stream import MARKS

_BATCH: Final = 512  # messages under way
_FETCH_S: Final = 5.0
_INACTIVE_S: Final = 60.0  # after which JetStream forgets a consumer that nobody asks


async def message_ids(context: JetStreamContext, *, since_us: int) -> AsyncIterator[str]:
    """The ids of the messages that are there, "" for one without.

    since_us: what is older, in microseconds since 1970, is left out: it is of another stream.
    Raises what nats-py raises.
    """
    config = api.ConsumerConfig(
        deliver_policy=api.DeliverPolicy.ALL,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=_INACTIVE_S,
        mem_storage=True,
        num_replicas=1,
    )
    consumer = await context.add_consumer(MARKS, config)
    left = consumer.num_pending or 0
    reader = await context.pull_subscribe_bind(consumer=consumer.name, stream=MARKS)
    while left:
        for message in await reader.fetch(_BATCH, timeout=_FETCH_S):
            left = message.metadata.num_pending
            if message.metadata.timestamp.timestamp() * 1e6 >= since_us:
                yield (message.headers or {}).get(api.Header.MSG_ID.value, "")
    await reader.unsubscribe()
