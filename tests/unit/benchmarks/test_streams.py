"""The benchmark of quiet streams, with few of them and for moments."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import streams
from benchmarks.envoy import why_not
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_quiet_streams_are_counted_behind_tls_and_behind_envoy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SENDING": 4, "PAUSE_S": 0.05, "WARM_S": 0.2, "QUIET_S": 0.2}.items():
        monkeypatch.setattr(streams, name, value)
    make_tiny_bundle(tmp_path / "tiny")
    options = Namespace(
        bundle=tmp_path / "tiny", data=None, clip=None, quiet_streams=6, seconds=0.5
    )
    figures = streams.run(options)
    for service in ("recognizer", "envoy"):
        assert figures[f"{service}_opened_streams_per_s"] > 0
        assert figures[f"{service}_p99_ms"] >= figures[f"{service}_p50_ms"] > 0
