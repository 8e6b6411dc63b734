"""Settings: where they come from, which wins, and what a wrong one is told."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cloud_recognizer.config import CloudConfig, parse_config
from mien.errors import ConfigError


def test_defaults_need_only_the_bundles(tmp_path: Path) -> None:
    assert parse_config(["--bundles", str(tmp_path)]) == CloudConfig(tmp_path)


def test_flags_win_over_environment_and_environment_over_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "cloud.yaml"
    settings.write_text("bundles: /srv/bundles\nport: 1\ncredits: 2\nmetrics_port: null\n")
    monkeypatch.setenv("MIEN_CLOUD_CONFIG", str(settings))
    monkeypatch.setenv("MIEN_CLOUD_CREDITS", "3")
    monkeypatch.setenv("MIEN_CLOUD_MAX_STREAMS", "5")
    config = parse_config(["--max_streams", "6"])
    assert (config.bundles, config.port, config.metrics_port) == (Path("/srv/bundles"), 1, None)
    assert (config.credits, config.max_streams) == (3, 6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("metrics_port", 70_000),
        ("bundles_poll_s", 0),
        ("max_bundles", 0),
        ("probe_interval_s", 0),
        ("threads", 0),
        ("workers", 0),
        ("max_batch_faces", 0),
        ("max_batch_wait_s", -0.1),
        ("max_age_s", 0),
        ("max_streams", 0),
        ("credits", 0),
        ("max_recognize_chunks", 511),  # the longest message would never fit
        ("queue_chunks", 4607),  # a stream would have no place
        ("queue_bytes", 4608 * 16384 - 1),
        ("max_sessions", 511),
        ("max_watchers", -1),
        ("watcher_queue", 63),  # a chunk of 64 faces would not fit
        ("target_face_bytes", -1),
        ("hello_timeout_s", 0),
        ("write_timeout_s", 0),
        ("drain_grace_s", -1),
        ("accuracy_window_s", 0),
        ("drift_min_faces", 0),
        ("label_window_s", -1),
        ("audit_mb", 0),
        ("audit_files", 1),
        ("audit_days", 0.5),
        ("label_faces", 63),  # the answers of a chunk would not fit
        ("device_chunks_per_s", -1),
        ("device_faces_per_s", -0.1),
        ("device_burst_s", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be from .* got {value}"):
        parse_config(["--bundles", "/b", f"--{name}={value}"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--bundles", "/b", "--port", "many"],
        ["--bundles", "/b", "--provider", "tpu"],
        ["--bundles", "/b", "--prot", "1"],
        ["--bundles", "/b", "--config", "/missing.yaml"],
    ],
)
def test_a_wrong_flag_ends_with_status_2_and_names_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_config(arguments)
    assert caught.value.code == 2
    wrong = (arguments[2:] or ["bundles"])[0].lstrip("-")
    assert wrong in capsys.readouterr().err


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    text = capsys.readouterr().out
    for field in fields(CloudConfig):
        _, _, after = text.partition(f"--{field.name} ")
        explanation = after.split("(", 1)[0].split("MIEN_CLOUD_" + field.name.upper())[-1]
        assert len(explanation.split()) >= 4, f"--{field.name} is not explained"


@pytest.mark.parametrize(
    ("queue_chunks", "queue_bytes", "places"),
    [(1000, 1 << 30, 400), (1 << 20, 900 * 16384, 300), (610, 610 * 16384, 10)],
)
def test_streams_get_the_places_for_which_there_are_chunks_and_bytes(
    queue_chunks: int, queue_bytes: int, places: int
) -> None:
    config = CloudConfig(
        Path("/b"),
        max_streams=10,
        max_recognize_chunks=600,
        queue_chunks=queue_chunks,
        queue_bytes=queue_bytes,
    )
    assert config.stream_chunks == places


TLS = {"tls_ca": Path("ca"), "tls_certificate": Path("server"), "tls_key": Path("server-key")}
TOKENS = {"token_port": 0, "token_keys": Path("keys")}


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.7", "cloud"])  # noqa: S104
def test_plaintext_is_heard_beyond_loopback_only_when_insisted_upon(host: str) -> None:
    with pytest.raises(ConfigError, match=r"give tls_ca, .* or insist on plaintext with insecure"):
        CloudConfig(Path(), host=host)
    assert CloudConfig(Path(), host=host, insecure=True).tls is None
    assert CloudConfig(Path(), host=host, **TLS).tls is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (TLS | {"insecure": True}, "exclude each other"),
        ({"tls_ca": Path("ca")}, "tls_certificate and tls_key must be given"),
        (TLS | {"tls_ca": None}, "tls_ca, .* is needed"),
        (TLS | {"token_port": 0}, "token_port and token_keys belong together"),
        (TLS | {"token_keys": Path("keys")}, "token_port and token_keys belong together"),
        (TLS | TOKENS | {"token_port": 65536}, "token_port must be from 0 to 65535"),
        (TOKENS, "token_port needs TLS"),
    ],
)
def test_tls_and_tokens_are_whole_or_not_there(settings: dict[str, Any], said: str) -> None:
    CloudConfig(Path(), **(TLS | TOKENS))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=said):
        CloudConfig(Path(), **settings)
