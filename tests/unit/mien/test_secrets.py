"""Whatever secret a setting holds, it is in no line that a service says, at any level."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mien.exit_codes import ExitCode
from tests.support.keys import make_signer
from tests.support.tiny_bundle import make_tiny_bundle

SECRET = "hunter2"  # noqa: S105


def said(module: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--log_level", "debug"],
        env={**os.environ, "GRPC_VERBOSITY": "debug"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr


# FFmpeg and OpenCV speak to standard error themselves, and each way to fail says something else.
@pytest.mark.parametrize(
    "source",
    [
        f"rtsp://me:{SECRET}@127.0.0.1:1/live?token={SECRET}",
        f"rtsp://me:p@{SECRET}@127.0.0.1:1/live",
        f"http://me:p@{SECRET}@127.0.0.1:1/live?user=me&pwd={SECRET}",
        f"rtps://me:p@{SECRET}@127.0.0.1:1/live",  # a slip: no scheme that there is
        f"rtsp://me:{SECRET}@[127.0.0.1/live",
    ],
)
def test_a_device_says_no_password_of_its_camera_and_no_key(source: str, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    key = tmp_path / "spool.key"
    key.write_text("5ec2e7" * 10 + "abcd\n")
    code, text = said(
        *("edge_encoder.cli", "run", "--source", source, "--bundle", str(bundle.folder)),
        *("--spool", str(tmp_path / "spool"), "--spool_key", str(key)),
        *("--server", "127.0.0.1:1", "--give_up_s", "0", "--source_give_up_s", "0"),
    )
    assert code != ExitCode.OK
    assert "settings:" in text
    assert SECRET not in text
    assert "5ec2e7" not in text


@pytest.mark.parametrize(
    ("host", "message"), [("", "such as tls://host"), ("localhost", "/nowhere")]
)
def test_a_recognizer_says_no_password_of_nats(
    host: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From the environment, too: what is logged is the setting, wherever it came from.
    monkeypatch.setenv("MIEN_CLOUD_NATS", f"nats://me:p@{SECRET}@{host}")
    code, text = said(
        *("cloud_recognizer.cli", "serve", "--bundles", "/nowhere"),
        *("--port", "0", "--metrics_port", "0"),
    )
    assert code != ExitCode.OK
    assert message in text
    assert ("settings:" in text) == bool(host)
    assert SECRET not in text


def test_a_wrong_key_file_is_named_and_never_shown(tmp_path: Path) -> None:
    signer = make_signer(tmp_path)
    secret = signer.private.read_text().splitlines()[1]
    (signer.folder / "wrong.pub").write_bytes(signer.private.read_bytes())
    bundle = make_tiny_bundle(tmp_path / "tiny")
    code, text = said(
        *("cloud_recognizer.cli", "serve", "--bundles", str(bundle.folder)),
        *("--port", "0", "--metrics_port", "0", "--bundle_keys", str(signer.folder)),
    )
    assert code == ExitCode.USAGE
    assert "wrong.pub" in text
    assert secret not in text
