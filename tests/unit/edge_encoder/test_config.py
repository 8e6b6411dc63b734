"""Settings: where they come from, and what is said of wrong ones."""

from pathlib import Path
from typing import Any

import pytest

from edge_encoder.config import EdgeConfig, parse_config
from mien.errors import ConfigError


def test_flags_come_before_the_environment_and_that_before_yaml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = tmp_path / "edge.yaml"
    settings.write_text("source: clip.mp4\nchunk_faces: 2\nmax_faces: 2\ndetect_every: 2\n")
    monkeypatch.setenv("MIEN_EDGE_MAX_FACES", "3")
    monkeypatch.setenv("MIEN_EDGE_DETECT_EVERY", "3")
    config = parse_config(["--config", str(settings), "--detect_every", "4"])
    assert config.source == "clip.mp4"
    assert (config.chunk_faces, config.max_faces, config.detect_every) == (2, 2, 4)


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_EDGE_SOURCE", "0")
    monkeypatch.setenv("MIEN_EDGE_SERVER", "cloud:50051")
    monkeypatch.setenv("MIEN_EDGE_INSECURE", "true")
    config = parse_config([])
    assert (config.source, config.server) == ("0", "cloud:50051")


TLS = {"tls_ca": "ca.pem", "tls_certificate": "door.pem", "tls_key": "door-key.pem"}


@pytest.mark.parametrize("server", ["cloud:50051", "127.0.0.1:1, cloud:2", "[2001:db8::1]:50051"])
def test_plaintext_leaves_the_machine_only_when_insisted_upon(server: str) -> None:
    with pytest.raises(ConfigError, match=r"give tls_ca, .* or insist on plaintext with insecure"):
        EdgeConfig("x", server)
    assert EdgeConfig("x", server, insecure=True).tls is None
    secured = EdgeConfig("x", server, **{name: Path(path) for name, path in TLS.items()})
    assert secured.tls is not None
    assert [str(path) for path in secured.tls.paths] == list(TLS.values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (TLS | {"insecure": True}, "insecure and tls_ca exclude each other"),
        ({"tls_ca": "ca.pem", "tls_key": "door-key.pem"}, "tls_certificate and tls_key belong"),
        ({"tls_certificate": "door.pem", "tls_key": "door-key.pem"}, "tls_ca, .* is needed"),
    ],
)
def test_tls_is_whole_or_not_there(settings: dict[str, Any], said: str) -> None:
    paths = {name: v if v is True else Path(v) for name, v in settings.items()}
    with pytest.raises(ConfigError, match=said):
        EdgeConfig("x", **paths)


@pytest.mark.parametrize(
    "written",
    [
        "server: one:50051, two:50051",
        "server: [one:50051, two:50051]",
        "server:\n- one:50051\n- two:50051",
    ],
)
def test_several_servers_are_a_list_or_have_commas(tmp_path: Path, written: str) -> None:
    settings = tmp_path / "edge.yaml"
    settings.write_text(f"source: clip.mp4\ninsecure: true\n{written}\n")
    assert parse_config(["--config", str(settings)]).servers == ("one:50051", "two:50051")


def test_several_servers_fit_a_flag_and_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_EDGE_SERVER", "one:1,[::1]:2")
    monkeypatch.setenv("MIEN_EDGE_INSECURE", "true")
    assert parse_config(["--source", "x"]).servers == ("one:1", "[::1]:2")
    assert parse_config(["--source", "x", "--server", "a:1,b:2"]).servers == ("a:1", "b:2")
    assert parse_config(["--source", "x", "--server", "a:1"]).servers == ("a:1",)


def test_paths_and_switches_are_what_they_look_like() -> None:
    config = parse_config(["--source", "x", "--bundle", "b", "--pace", "true"])
    assert config.bundle == Path("b")
    assert config.pace is True
    assert config.metrics_port is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", ""),
        ("server", "no-port"),
        ("server", "host:port"),
        ("server", "host:0"),
        ("server", "host:65536"),
        ("server", []),
        ("server", ["a:1", "no-port"]),
        ("server", "a:1,,b:2"),
        ("server", "a:1,a:1"),
        ("server", [f"recognizer-{number}:1" for number in range(17)]),
        ("keepalive_s", 5),
        ("device_id", "a/b"),
        ("device_id", "x" * 65),
        ("detector_sha256", "abc"),
        ("detect_every", 0),
        ("detect_max_side_px", 10),
        ("min_face_px", 0),
        ("max_faces", 0),
        ("chunk_faces", 65),
        ("chunk_seconds", -0.1),
        ("queue_chunks", 0),
        ("max_latency_ms", -1),
        ("give_up_s", -1),
        ("spool_mb", 0),
        ("spool_hours", 0),
        ("spool_chunks_per_s", 0),
        ("spool_key", Path("key")),
        ("read_timeout_s", 0),
        ("stall_s", 0),
        ("frozen_s", -1),
        ("expected_fps", 0),
        ("source_give_up_s", -1),
        ("metrics_port", 65536),
        ("purpose", "x" * 501),
    ],
)
def test_a_wrong_setting_is_named(field: str, value: object) -> None:
    settings = {"source": "clip.mp4", field: value}
    with pytest.raises(ConfigError, match=field):
        EdgeConfig(**settings)  # type: ignore[arg-type]


def test_an_unknown_flag_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_config(["--source", "x", "--chunk_face", "3"])
    assert ended.value.code == 2
    assert "chunk_face" in capsys.readouterr().err


def test_a_device_without_a_name_is_called_after_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "door camera, 2nd floor")
    assert EdgeConfig("x").device == "door-camera--2nd-floor"
    assert EdgeConfig("x", device_id="door").device == "door"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://admin:secret@camera/live?token=abc", "rtsp://camera/live"),
        ("rtsp://admin:P@ssw0rd@10.0.0.5/live", "rtsp://10.0.0.5/live"),
        ("clip.mp4", "clip.mp4"),
        ("mail@home.mp4", "mail@home.mp4"),
    ],
)
def test_a_source_is_logged_without_its_secrets(source: str, shown: str) -> None:
    assert EdgeConfig(source).shown_source == shown
