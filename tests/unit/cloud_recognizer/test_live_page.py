"""The live page's answers: events, pictures, bounds, and what a browser is told to refuse."""

import asyncio
import base64
import json
import socket
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from cloud_recognizer.live_page import site
from cloud_recognizer.live_page.listening import MAX_CONNECTIONS
from mien.bundle import Bundle
from mien.v1 import recognition_pb2 as pb
from tests.support.hubs import origin, result
from tests.support.pages import Events, browser, page_alone, page_of, watching
from tests.support.recognizer import (
    Device,
    Running,
    eventually,
    hello,
    payload,
    running_recognizer,
)
from tests.support.tiny_bundle import ENHANCEMENT

PAGE = {"live_page": "127.0.0.1:0"}


async def send(
    running: Running, bundle: Bundle, *chunks: bytes, device_id: str = "door", epoch: int = 1
) -> None:
    device = Device(running.stub)
    await device.open(hello(bundle, device_id, epoch))
    for seq, chunk in enumerate(chunks, 1):
        await device.send(seq, chunk)
    await device.close()


async def test_there_is_no_page_unless_it_is_asked_for(bundles: Path) -> None:
    async with running_recognizer(bundles) as running:
        assert running.serving.live_page is None


async def test_a_chunk_is_an_event_with_its_faces_and_nothing_else_of_them(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, **PAGE) as running, watching(page_of(running)) as events:
        call = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        await call.initial_metadata()
        chunk = payload(bundle, faces=3, track_id=2**48 - 1)
        await send(running, bundle, chunk, epoch=2**63 + 1)
        told = await events.next("faces")
        seen = await call.read()
    assert isinstance(seen, pb.WatchRecognitionsResponse)
    assert told.data == {
        "device": "door",
        "run": str(2**63 + 1),  # a number would be another one in JavaScript
        "dropped": 0,
        "faces": [
            {
                "track": str(2**48 - 1),
                "before_ms": 80 - 40 * index,
                "expression": face.expression,
                "probability": round(face.probability, 3),
            }
            for index, face in enumerate(seen.recognitions)
        ],
    }
    assert told.id == seen.resume_token.hex()


async def test_figures_are_those_that_are_counted(bundles: Path, bundle: Bundle) -> None:
    chunks = [payload(bundle, faces=3), payload(bundle, faces=2)]
    async with running_recognizer(bundles, **PAGE) as running:
        await send(running, bundle, *chunks)
        async with watching(page_of(running)) as events:
            figures = (await events.next("figures")).data
    (counted,) = [row for row in figures["bundles"] if row["faces"]]
    assert counted["bundle_id"] == bundle.bundle_id
    assert (counted["faces"], counted["payload_bytes"]) == (5, sum(map(len, chunks)))
    assert [*figures["expressions"]] == [*bundle.manifest.expressions]
    ((estimate),) = figures["accuracy"]
    assert estimate["faces"] == 5
    assert 0 < estimate["estimate"] < 1
    assert estimate["calibrated"] is False
    assert "door" not in json.dumps(figures)


async def test_a_device_that_is_connected_and_silent_is_told_of_until_it_leaves(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, **PAGE) as running, watching(page_of(running)) as events:
        assert (await events.next("devices")).data == []
        device = Device(running.stub)
        await device.open(hello(bundle, "door"))
        (told,) = await until_told(events, 1)
        assert told["device"] == "door"
        silent_s = told["silent_s"]
        (told,) = (await events.next("devices")).data
        assert told["silent_s"] > silent_s >= 0
        before_s, seq = told["silent_s"], 0
        while told["silent_s"] >= before_s:  # a busy machine may tell of a face late
            seq += 1
            await device.send(seq, payload(bundle))
            (told,) = (await events.next("devices")).data
        await device.close()
        assert await until_told(events, 0) == []


async def until_told(events: Events, devices: int) -> Any:
    """What is told of the devices that are connected, once there are so many."""
    while len(told := (await events.next("devices")).data) != devices:
        pass
    return told


async def test_a_browser_that_comes_back_goes_on_after_what_it_saw(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, retention_s=600.0, **PAGE) as running:
        async with watching(page_of(running)) as events:
            await send(running, bundle, payload(bundle, faces=1))
            last = (await events.next("faces")).id
        await send(running, bundle, payload(bundle, faces=2), device_id="gate")
        async with watching(page_of(running), last) as events:
            assert (await events.next("faces", "missed")).data["device"] == "gate"


@pytest.mark.parametrize("forged", [False, True])
async def test_a_browser_is_told_when_what_it_missed_is_gone(
    bundles: Path, bundle: Bundle, forged: bool
) -> None:
    async with running_recognizer(bundles, **PAGE) as running:
        async with watching(page_of(running)) as events:
            await send(running, bundle, payload(bundle, faces=1))
            last = (await events.next("faces")).id
        await send(running, bundle, payload(bundle, faces=2), device_id="gate")
        async with watching(page_of(running), "<script>" if forged else last) as events:
            assert (await events.next("faces", "missed")).name == "missed"
            await send(running, bundle, payload(bundle, faces=2), device_id="hall")
            assert (await events.next("faces")).data["device"] == "hall"


async def test_a_slow_browser_loses_the_oldest_holds_up_nobody_and_is_told() -> None:
    async with page_alone(watcher_queue=150) as page:
        reader, writer = await slow_connection(page.port)
        async with watching(f"http://127.0.0.1:{page.port}/") as quick:
            for seq in range(1, 301):  # a megabyte and a half
                await page.hub.publish(origin(), result(seq, (7,) * 64))
                assert len((await quick.next("faces")).data["faces"]) == 64
            dropped = page.sample("dropped_total", reason="watcher_slow")
            assert dropped > 0
            await page.hub.publish(origin("gate"), result(1))
            assert (await quick.next("faces")).data["dropped"] == 0
        seen, last = 0, {"device": ""}
        while last["device"] != "gate":
            last = await next_faces(reader)
            seen += len(last["faces"])
        writer.close()
        assert last["dropped"] == page.sample("dropped_total", reason="watcher_slow")
    assert seen + last["dropped"] == 300 * 64 + 1


async def next_faces(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The data of the next event `faces`, whatever else is there."""
    while True:
        text = await reader.readuntil(b"\n\n")
        if b"event: faces" in text:
            lines = text.split(b"\n")
            data = next(line for line in lines if line.startswith(b"data: "))
            found: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
            return found


async def slow_connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for events, and read nothing of them for now."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 14)
    writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    return reader, writer


async def test_a_browser_that_reads_nothing_is_cut() -> None:
    async with page_alone(write_timeout_s=0.2) as page:
        _, writer = await slow_connection(page.port)
        seq = 0
        async with asyncio.timeout(60):
            while page.sample("page_browsers"):
                seq += 1
                await page.hub.publish(origin(), result(seq, (7,) * 64))
                await asyncio.sleep(0.001)
        assert page.sample("page_refusals_total", code="slow_browser") == 1
        assert page.sample("watchers") == 0
        writer.close()


async def test_browsers_beyond_the_limit_are_refused_and_a_place_is_free_again(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "MAX_BROWSERS", 1)
    async with running_recognizer(bundles, **PAGE) as running, browser(running) as session:
        async with watching(page_of(running)), session.get("/events") as second:
            assert second.status == 503
            assert (await second.json())["code"] == "overloaded"
        assert running.sample("page_refusals_total", code="overloaded") == 1
        await eventually(lambda: running.sample("page_browsers") == 0)
        async with watching(page_of(running)):
            assert running.sample("watchers") == 1


async def test_connections_beyond_the_limit_are_closed(bundles: Path) -> None:
    async with running_recognizer(bundles, **PAGE) as running:
        port = int(page_of(running).rsplit(":", 1)[1].strip("/"))
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        assert running.sample("page_refusals_total", code="connections") == 1
        for _, each in [*held, (reader, writer)]:
            each.close()


async def test_who_watches_is_written_down(bundles: Path, bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    settings: dict[str, Any] = {"audit_log": log, "audit_required": True, **PAGE}
    async with running_recognizer(bundles, **settings) as running:
        async with watching(page_of(running)) as events:
            await send(running, bundle, payload(bundle, faces=3))
            await events.next("faces")
        await eventually(lambda: len(log.read_text().splitlines()) == 2)
    begun, seen = map(json.loads, log.read_text().splitlines())
    assert (begun["event"], begun["devices"]) == ("watch_begun", "all")
    assert (seen["event"], seen["devices"], seen["ended"]) == ("watched", {"door": 3}, True)
    assert begun["peer"].startswith("live_page:127.0.0.1:")


async def test_nothing_is_shown_that_cannot_be_written_down(bundles: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit" / "log"
    log.parent.mkdir()
    settings: dict[str, Any] = {"audit_log": log, "audit_required": True, **PAGE}
    async with running_recognizer(bundles, **settings) as running, browser(running) as session:
        log.unlink()
        log.parent.rmdir()
        async with session.get("/events") as response:
            assert response.status == 503
            assert (await response.json())["code"] == "audit_failed"


async def test_a_browser_is_told_that_the_recognizer_stops_which_does_not_wait_for_it(
    bundles: Path,
) -> None:
    async with aiohttp.ClientSession() as session:
        async with running_recognizer(bundles, **PAGE) as running:
            response = await session.get(f"{page_of(running)}events")
            events = Events(response)
            await events.next("figures")
        assert running.sample("page_browsers") == 0
        assert (await events.next()).data == {"reason": "the recognizer is stopping"}
        assert await response.content.read() == b""


async def test_pictures_are_refused_by_default(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles, **PAGE) as running, browser(running) as session:
        async with session.post("/picture", params={"device": "door"}) as response:
            assert response.status == 403
            assert (await response.json())["code"] == "reconstruction_disabled"
        async with session.get("/events") as response:
            assert (await Events(response).next("begin")).data == {"reconstruction": False}


async def asked_while_it_sends(
    session: aiohttp.ClientSession, device: Device, chunk: bytes, layers: tuple[bytes, ...]
) -> aiohttp.ClientResponse:
    """What a browser gets that asks for a picture of a device that sends this all the time."""
    asking = asyncio.ensure_future(session.post("/picture", params={"device": "door"}))
    seq = 0
    while not asking.done():
        seq += 1
        await device.send(seq, chunk, layers)
        await device.acknowledged(seq)
    return await asking


async def test_a_picture_is_of_the_next_chunk_and_is_written_down(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    chunk = payload(bundle, faces=3, track_id=9)
    layers = tuple(bundle.layers().encode(chunk, [np.ones(ENHANCEMENT, np.int32), None, None]))
    settings: dict[str, Any] = {"allow_reconstruction": True, "audit_log": log, **PAGE}
    async with running_recognizer(bundles, **settings) as running, browser(running) as session:
        await send(running, bundle, payload(bundle, faces=1, track_id=1))  # is gone
        device = Device(running.stub)
        await device.open(hello(bundle, "door", epoch=2))
        made = await (await asked_while_it_sends(session, device, chunk, layers)).json()
        request = pb.ReconstructRequest(payload=chunk, device_id="door", layers=layers)
        expected = (await running.stub.Reconstruct(request)).faces[0]
    assert made["track"] == "9"
    assert base64.b64decode(made["png"]) == expected.png
    first = json.loads(log.read_text().splitlines()[0])
    assert (first["event"], first["device"], first["faces"]) == ("reconstructed", "door", 1)
    assert first["peer"].startswith("live_page:")


async def test_layers_that_hold_no_face_are_said_to_be_missing(
    bundles: Path, bundle: Bundle
) -> None:
    chunk = payload(bundle, faces=2)
    layers = tuple(bundle.layers().encode(chunk, [None, None]))
    settings: dict[str, Any] = {"allow_reconstruction": True, **PAGE}
    async with running_recognizer(bundles, **settings) as running, browser(running) as session:
        device = Device(running.stub)
        await device.open(hello(bundle, "door"))
        answer = await asked_while_it_sends(session, device, chunk, layers)
        assert (answer.status, (await answer.json())["code"]) == (503, "layers_missing")


async def test_a_picture_of_a_silent_device_or_of_none_is_refused(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "PATIENCE_S", 0.05)
    settings: dict[str, Any] = {"allow_reconstruction": True, **PAGE}
    async with running_recognizer(bundles, **settings) as running, browser(running) as session:
        for device, status in (("door", 503), ("", 400), ("<b>", 400)):
            async with session.post("/picture", params={"device": device}) as response:
                assert response.status == status


async def test_every_answer_carries_the_policy_and_no_file_asks_for_more(bundles: Path) -> None:
    async with running_recognizer(bundles, **PAGE) as running, browser(running) as session:
        for path in ("/", *(f"/{name}" for name in site.FILES), "/nowhere", "/events"):
            async with session.get(path) as response:
                assert response.headers.items() >= site.HEADERS.items(), path
                assert response.status == (404 if path == "/nowhere" else 200)
        async with session.get("/..%2Fsite.py") as response:
            assert response.status == 404
    policy = site.HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_files_load_nothing_from_elsewhere_and_hold_no_inline_script_or_style() -> None:
    folder = Path(site.__file__).parent / "static"
    assert {path.name for path in folder.iterdir()} == set(site.FILES)
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        for forbidden in ("http:", "https:", "//cdn", "innerHTML", "insertAdjacentHTML", "@import"):
            assert forbidden not in text.replace("http://www.w3.org/2000/svg", ""), path
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<style" not in page
    assert "style=" not in page
    assert " on" not in page.replace(" once", "").replace(" only", "") or " onclick" not in page
    assert page.count("<script") == page.count('<script type="module" src="page.js"></script>') == 1
