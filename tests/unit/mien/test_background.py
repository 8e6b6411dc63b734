"""Tasks that last as long as a context."""

import asyncio

import pytest

from mien.background import background


async def test_the_work_runs_beside_the_context_and_is_gone_after_it() -> None:
    said: list[str] = []

    async def work() -> None:
        said.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            said.append("over")

    async with background(work(), "work"):
        await asyncio.sleep(0)
        assert said == ["begun"]
    assert said == ["begun", "over"]


async def test_what_the_context_raises_comes_through() -> None:
    async def fails() -> None:
        raise RuntimeError("of the work")

    async def both_fail() -> None:
        async with background(fails(), "fails"):
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(KeyError):
        await both_fail()
