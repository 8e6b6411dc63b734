"""By default nothing is held: neither in memory once it is answered, nor on any disk."""

import os
import re
import sys
from dataclasses import fields
from pathlib import Path

import grpc
import pytest

from cloud_recognizer.config import CloudConfig
from edge_encoder.config import EdgeConfig
from mien.bundle import Bundle, load_bundle
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.recognizer import Device, hello, payload, running_recognizer
from tests.support.services import serving

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "privacy.md"
# Every setting that makes something be kept, with the default that keeps nothing.
CLOUD_KEEPS = {
    "retention_s": None,
    "nats": None,
    "label_window_s": 0.0,
    "audit_log": None,
    "archive": None,
    "archive_days": None,
    "allow_reconstruction": False,
}
EDGE_KEEPS = {"spool": None, "record": None, "results": "-"}


@pytest.fixture
def released() -> Bundle:
    return load_bundle(ROOT / "bundles" / "ferplus-48")


def test_the_defaults_keep_nothing() -> None:
    cloud, edge = CloudConfig(Path("b")), EdgeConfig("0")
    assert {name: getattr(cloud, name) for name in CLOUD_KEEPS} == CLOUD_KEEPS
    assert {name: getattr(edge, name) for name in EDGE_KEEPS} == EDGE_KEEPS
    assert cloud.held_s == 0


def test_the_page_names_every_setting_that_keeps_something_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("## What is stored")[2].partition("\n## ")[0]
    named = set(re.findall(r"`--(\w+)", table))
    known = {field.name for kind in (CloudConfig, EdgeConfig) for field in fields(kind)}
    assert {*CLOUD_KEEPS, *EDGE_KEEPS} - {"allow_reconstruction"} <= named <= known


def test_the_pages_figures_are_those_of_the_model_card() -> None:
    card = (ROOT / "bundles" / "ferplus-48" / "MODEL_CARD.md").read_text(encoding="utf-8")
    table = PAGE.read_text(encoding="utf-8").partition("## What can be recovered")[2]
    rows = re.findall(
        r"^\| (\w[^|]*) \| ([\d.]+[^|]*) \|$", table.partition("\n## ")[0], re.MULTILINE
    )
    assert len(rows) == 7
    for name, value in rows:
        assert f"| {name} | {value} |" in card


def test_the_page_says_how_many_times_the_bytes_layers_are_by_the_model_card() -> None:
    card = (ROOT / "bundles" / "ferplus-48" / "MODEL_CARD.md").read_text(encoding="utf-8")
    base = re.search(r"^\| payload bytes a face \| ([\d.]+) \|$", card, re.MULTILINE)
    layered = re.search(r"^\| \d+, all \| ([\d.]+) \|", card, re.MULTILINE)
    assert base is not None
    assert layered is not None
    times = (float(layered[1]) - float(base[1])) / float(base[1])
    assert f"makes the face viewable | {times:.0f} times as many |" in PAGE.read_text("utf-8")


def test_the_page_is_right_about_how_often_answers_are_wrong(released: Bundle) -> None:
    assert "more than one answer in six" in PAGE.read_text(encoding="utf-8")
    assert 1 / 6 < 1 - released.manifest.figures["accuracy"] < 1 / 5


async def test_an_answer_is_gone_once_it_is_given(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles) as running:
        watch = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        await watch.initial_metadata()
        device = Device(running.stub)
        await device.open(hello(bundle))
        await device.send(1, payload(bundle, seed=1))
        await device.acknowledged(1)
        response = await watch.read()
        assert isinstance(response, pb.WatchRecognitionsResponse)
        await device.send(2, payload(bundle, seed=2))
        await device.acknowledged(2)
        watch.cancel()

        token = WatchedChunk.from_proto(response).resume_token
        late = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest(resume_token=token))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await late.read()
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE, "chunk 2 is not held"
        label = pb.FaceLabel(device_id="door", epoch=1, seq=1, index=0, expression="fear")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.ReportLabels(pb.ReportLabelsRequest(labels=[label]))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
async def test_a_recognizer_opens_no_file_for_writing_and_leaves_none(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for name, folder in homes.items():
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    # ONNX Runtime's own telemetry rests where one of these is set, whatever we do about it.
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    log = tmp_path / "log"
    with serving(bundle.folder, log) as cloud:
        async with grpc.aio.insecure_channel(cloud.address) as channel:
            device = Device(RecognitionServiceStub(channel))
            await device.open(hello(bundle))
            await device.send(1, payload(bundle))
            await device.acknowledged(1)
            assert written(cloud.process.process.pid) == {str(log)}
            await device.close()
    assert [path for folder in homes.values() for path in folder.rglob("*")] == []


def written(pid: int) -> set[str]:
    """The files on a disk that a process, or one that it has begun, has open for writing."""
    found = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        target = str(handle.readlink())
        flags = int(Path(f"/proc/{pid}/fdinfo/{handle.name}").read_text().split()[3], 8)
        regular = target.startswith("/") and not target.startswith(("/dev/", "/proc/", "/memfd:"))
        if regular and flags & (os.O_WRONLY | os.O_RDWR):
            found.add(target)
    return found
