"""Devices to groups, as the operator says."""

from pathlib import Path

import pytest

from cloud_recognizer.accuracy.device_groups import DeviceGroups
from cloud_recognizer.config import parse_config
from mien.errors import ConfigError


def test_the_first_pattern_that_matches_all_of_an_id_decides() -> None:
    groups = DeviceGroups({"lobby-1": "desk", "lobby-*": "lobby", "gate-[0-9]": "gates"})
    ids = ("lobby-1", "lobby-12", "lobby-", "gate-7", "gate-77", "a-lobby-1", "")
    expected = ["desk", "lobby", "lobby", "gates", "other", "other", "other"]
    assert [groups.of(device_id) for device_id in ids] == expected
    assert DeviceGroups({}).of("lobby-1") == "other"


def test_groups_come_from_a_file_or_a_flag(tmp_path: Path) -> None:
    settings = tmp_path / "cloud.yaml"
    settings.write_text('bundles: /b\ndevice_groups:\n  "lobby-*": lobby\n  "*": rest\n')
    groups = {"lobby-*": "lobby", "*": "rest"}
    assert parse_config(["--config", str(settings)]).device_groups == groups
    flag = '--device_groups={"lobby-*": "lobby", "*": "rest"}'
    assert parse_config(["--bundles", "/b", flag]).device_groups == groups


@pytest.mark.parametrize(
    "patterns",
    [
        {"a/b": "x"},
        {"": "x"},
        {"a*": "a b"},
        {"a*": "other"},
        {"a*": "calls"},
        {f"{number}": f"g{number}" for number in range(33)},
        {f"{number}": "g" for number in range(257)},
    ],
)
def test_what_would_not_be_bounded_or_plain_is_refused(patterns: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^device_groups"):
        DeviceGroups(patterns)


def test_32_groups_are_taken() -> None:
    groups = DeviceGroups({f"{number}": f"g{number}" for number in range(32)})
    assert groups.of("31") == "g31"


def test_no_more_devices_are_remembered_than_there_is_room_for() -> None:
    groups = DeviceGroups({"a*": "a"})
    assert {groups.of(f"a{number}") for number in range(10_000)} == {"a"}
    assert groups.of.cache_info().currsize == 4096
