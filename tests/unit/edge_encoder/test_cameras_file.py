"""The file that lists cameras: what it may say, and what is said of a wrong one."""

from pathlib import Path

import pytest

from edge_encoder.fleet.cameras_file import MAX_CAMERAS, MAX_FILE_BYTES, CamerasFile, parse_cameras
from mien.errors import ConfigError

GOOD = """
defaults: &usual
  server: recognizer:50051
  insecure: true
  chunk_faces: 4
cameras:
  front-door:
    source: rtsp://admin:secret@10.0.0.7/stream
    expected_fps: 15
  yard:
    source: 0
    chunk_faces: 2
    device_id: yard-camera
"""


def test_cameras_have_the_defaults_and_what_is_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box 1")
    monkeypatch.setenv("MIEN_EDGE_CHUNK_FACES", "7")  # the file alone counts
    cameras = parse_cameras(GOOD.encode())
    assert list(cameras) == ["front-door", "yard"]
    door, yard = cameras.values()
    assert (door.chunk_faces, yard.chunk_faces) == (4, 2)
    assert door.server == yard.server == "recognizer:50051"
    assert (door.source, yard.source) == ("rtsp://admin:secret@10.0.0.7/stream", "0")
    assert (door.device_id, yard.device_id) == ("box-1.front-door", "yard-camera")
    assert (door.expected_fps, yard.expected_fps) == (15, None)


def test_a_fleet_may_have_several_servers() -> None:
    listed = b"cameras: {a: {source: x}, b: {source: y, server: z:3}}"
    text = b"defaults: {insecure: true, server: [one:1, two:2]}\n" + listed
    a, b = parse_cameras(text).values()
    assert (a.servers, b.servers) == (("one:1", "two:2"), ("z:3",))


def test_null_is_the_setting_s_own_default_whatever_the_file_s_is() -> None:
    text = b"defaults: {expected_fps: 5}\ncameras: {a: {source: x, expected_fps: null}}"
    assert parse_cameras(text)["a"].expected_fps is None


def test_a_merge_key_is_no_second_key() -> None:
    text = b"cameras: {a: &a {source: x, max_faces: 2}, b: {<<: *a, source: y}}"
    camera = parse_cameras(text)["b"]
    assert (camera.source, camera.max_faces) == ("y", 2)


def test_no_camera_at_all_must_be_said() -> None:
    assert parse_cameras(b"cameras: {}") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file must be a mapping"),
        ("defaults: {}", "cameras is missing"),
        ("cameras:", "cameras must be a mapping"),
        ("cameras: {}\ncamera: {}", "camera is unknown"),
        ("cameras: {a: {source: x}", "no YAML"),
        ("cameras: {a: {source: x}, a: {source: y}}", "a is there twice, once more in line 1"),
        ("cameras: {'a b': {source: x}}", "cameras.a b: a name is"),
        ("cameras: {a: {}}", r"cameras\.a\.source is missing"),
        ("cameras: {a: }", r"cameras\.a must be a mapping"),
        ("cameras: {1: {source: x}}", "cameras must be a mapping from names"),
        ("cameras: {a: {source: [x]}}", r"cameras\.a\.source must be one value, not list"),
        ("cameras: {a: {source: x, server: [h:1, h]}}", r"cameras\.a: server must be HOST:PORT"),
        ("cameras: {a: {source: x, server: [h:1, 5]}}", r"cameras\.a: .*server"),
        ("cameras: {a: {source: x, server: [[h:1]]}}", r"cameras\.a\.server must be one value"),
        ('cameras: {a: {source: x, server: ["h:1\\0"]}}', r"cameras\.a\.server has a NUL"),
        ('cameras: {a: {source: "x\\0"}}', r"cameras\.a\.source has a NUL"),
        ("cameras: {a: {source: x, chunk_face: 2}}", r"cameras\.a: chunk_face is no setting"),
        ("cameras: {a: {source: x, chunk_faces: two}}", r"cameras\.a: .*chunk_faces"),
        ("cameras: {a: {source: x, chunk_faces: 99}}", r"cameras\.a: chunk_faces must be from"),
        ("cameras: {a: {source: x, results: y}}", r"cameras\.a\.results: .* mien-edge fleet"),
        ("defaults: {device_id: d}\ncameras: {}", r"defaults\.device_id: each camera"),
        ("defaults: {metrics_port: 1}\ncameras: {}", r"defaults\.metrics_port"),
        (
            "cameras: {a: {source: x, device_id: d}, b: {source: y, device_id: d}}",
            r"cameras\.b\.device_id is that of a, too: d",
        ),
        (
            "cameras: {a: {source: x, record: r}, b: {source: y, record: r}}",
            r"cameras\.b\.record is that of a",
        ),
        (
            "cameras: {a: {source: x, spool: s}, b: {source: y, spool: s}}",
            r"cameras\.b\.spool is that of a",
        ),
        ("cameras: {a: {source: !!python/name:os.system }}", "no YAML"),
        ("[" * 1000, "no YAML"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_cameras(text.encode())


def test_more_cameras_than_labels_are_allowed_are_refused() -> None:
    listed = "".join(f"  c{index}: {{source: x}}\n" for index in range(MAX_CAMERAS + 1))
    with pytest.raises(ConfigError, match=f"may list {MAX_CAMERAS}, not {MAX_CAMERAS + 1}"):
        parse_cameras(f"cameras:\n{listed}".encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="no YAML"):
        parse_cameras(b"cameras: \xff\xfe\x00")


def test_aliases_that_multiply_are_refused_without_being_written_out() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    bomb = "defaults:\n  source: *a39\ncameras: {}"
    with pytest.raises(ConfigError):
        parse_cameras("\n".join([*lines, bomb]).encode())


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("expected_fps: 15", "expected_fps: -1"),
        GOOD.replace("expected_fps: 15", "] expected_fps: 15"),
        GOOD.replace("expected_fps: 15", "source: again"),
        GOOD.replace("device_id: yard-camera", "source: x"),
    ],
)
def test_no_message_shows_a_password(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cameras(text.encode())
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None or "secret" not in str(caught.value.__cause__)


def test_a_file_is_read_again_once_it_is_another_and_has_come_to_rest(tmp_path: Path) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text(GOOD)
    file = CamerasFile(path)
    assert len(file.read()) == 2
    assert not file.has_changed()
    path.write_text("cameras: {")
    assert not file.has_changed()  # it may still be being written
    path.write_text("cameras: {a: {source: x}}")
    assert not file.has_changed()
    assert file.has_changed()
    assert list(file.read()) == ["a"]
    assert not file.has_changed()


def test_a_file_that_goes_away_is_a_change_and_one_that_comes_back_too(tmp_path: Path) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text(GOOD)
    file = CamerasFile(path)
    file.read()
    path.unlink()
    assert [file.has_changed(), file.has_changed()] == [False, True]
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        file.read()
    assert not file.has_changed()  # said once
    path.write_text(GOOD)
    assert [file.has_changed(), file.has_changed()] == [False, True]


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="longer than"):
        CamerasFile(path).read()
