"""Writing to a client that may have stopped reading."""

import asyncio
from typing import TypeVar

import grpc

from mien.errors import UnavailableError

Request = TypeVar("Request")
Response = TypeVar("Response")


async def write(
    context: grpc.aio.ServicerContext[Request, Response], message: Response, timeout_s: float
) -> None:
    """Write one message; flow control may hold it back until earlier ones are read.

    Raises UnavailableError when that takes longer than `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await context.write(message)
    except TimeoutError:
        raise UnavailableError(
            f"nothing was read for {timeout_s:g} seconds, so this call was ended"
        ) from None
