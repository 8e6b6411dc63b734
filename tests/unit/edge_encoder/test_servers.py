"""The order in which a device tries its recognizers, and their addresses."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_encoder.servers import MAX_ADDRESSES, Endpoint, Servers, Target, addresses_of, order

NAMES = tuple(f"recognizer-{letter}:50051" for letter in "abcdef")
DEVICES = [f"device-{number}" for number in range(3000)]

names_of_a_list = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


def looked_up(addresses: dict[str, int]) -> Servers:
    """Servers whose names have so many addresses each."""

    def look_up(name: str) -> list[Endpoint]:
        index = NAMES.index(name)
        return [(f"10.{index}.0.{number}", 50051) for number in range(addresses[name])]

    return Servers(tuple(addresses), "door", look_up)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@given(names_of_a_list, st.text(max_size=64))
def test_an_order_has_each_server_once_and_does_not_depend_on_the_list_s(
    names: list[str], device_id: str
) -> None:
    found = [names[index] for index in order(names, device_id)]
    assert sorted(found) == sorted(names)
    backwards = names[::-1]
    assert [backwards[index] for index in order(backwards, device_id)] == found


@given(names_of_a_list, st.text(max_size=64))
def test_a_server_that_leaves_the_list_changes_nothing_between_the_others(
    names: list[str], device_id: str
) -> None:
    found = [names[index] for index in order(names, device_id)]
    left = found[1:]
    assert [left[index] for index in order(left, device_id)] == left


def test_a_fleet_spreads_and_so_do_those_whose_server_is_gone() -> None:
    names = NAMES[:3]
    orders = Counter(order(names, device) for device in DEVICES)
    assert len(orders) == 6
    # 500 each is even; six standard deviations of a fair draw are 122.
    assert all(378 < count < 622 for count in orders.values())


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 4), min_size=1),
    st.lists(st.booleans(), max_size=30),
)
async def test_after_a_success_every_other_address_has_its_turn_before_the_round_is_over(
    addresses: dict[str, int], outcomes: list[bool]
) -> None:
    walk = looked_up(addresses).walk()
    there = sum(max(count, 1) for count in addresses.values())  # a name without one is dialled
    target, is_over = await walk.advance()
    assert not is_over
    this_round = [target.dial]
    for succeeds in outcomes:
        if succeeds:
            walk.succeeded()
            this_round = [target.dial]
        target, is_over = await walk.advance()
        assert is_over == (len(this_round) == there)
        this_round = [target.dial] if is_over else [*this_round, target.dial]
        assert len(set(this_round)) == len(this_round)


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4), min_size=2))
async def test_names_come_in_the_device_s_order_and_all_addresses_of_one_together(
    addresses: dict[str, int],
) -> None:
    names = tuple(addresses)
    walk = looked_up(addresses).walk()
    tried = [(await walk.advance())[0] for _ in range(2 * sum(addresses.values()))]
    changes = [tried[0], *(after for before, after in pairwise(tried) if after.name != before.name)]
    expected = [names[index] for index in order(names, "door")] * 2
    assert [item.name for item in changes] == expected
    assert all(names[item.position - 1] == item.name for item in tried)


async def test_a_walk_begins_at_the_address_that_answered_last() -> None:
    servers = looked_up({NAMES[0]: 3, NAMES[1]: 3})
    first = servers.walk()
    tried = [(await first.advance())[0] for _ in range(5)]
    servers.begin_at(tried[4])
    second = servers.walk()
    again = [(await second.advance())[0] for _ in range(6)]
    assert again[0] == tried[4]
    assert len(set(again)) == 6


async def test_an_address_that_is_gone_from_the_name_is_not_tried_again() -> None:
    addresses = [("10.0.0.1", 1), ("10.0.0.2", 1)]
    servers = Servers(("pods:1",), look_up=lambda _: list(addresses))
    walk = servers.walk()
    await walk.advance()
    walk.succeeded()
    addresses[:] = [("10.0.0.7", 1)]
    assert await walk.advance() == (Target(1, "pods:1", "10.0.0.7:1", (("10.0.0.7", 1),)), False)


async def test_of_very_many_addresses_each_device_tries_some_and_not_all_the_same() -> None:
    many = [(f"10.0.{number // 250}.{number % 250}", 1) for number in range(1000)]
    found = [await Servers(("a:1",), who, lambda _: many).targets(0) for who in ("door", "yard")]
    assert [len(targets) for targets in found] == [MAX_ADDRESSES] * 2
    assert found[0] != found[1]


async def test_the_family_that_the_system_prefers_comes_first() -> None:
    mixed = [("fd00::1", 1), ("10.0.0.1", 1), ("fd00::2", 1), ("10.0.0.2", 1)]
    dials = [target.dial for target in await Servers(("a:1",), "x", lambda _: mixed).targets(0)]
    assert sorted(dials[:2]) == ["[fd00::1]:1", "[fd00::2]:1"]


async def test_behind_a_proxy_a_name_is_the_proxy_s_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    found = [("10.0.0.1", 1), ("10.0.0.2", 1)]
    (target,) = await Servers(("recognizer:1",), look_up=lambda _: found).targets(0)
    assert (target.dial, target.endpoints, target.options) == ("recognizer:1", tuple(found), ())


async def test_who_routes_by_name_is_told_it() -> None:
    (target,) = await Servers(("dns:recognizer:1",), look_up=lambda _: [("10.0.0.1", 1)]).targets(0)
    assert target.options == (("grpc.default_authority", "recognizer:1"),)
    assert str(target) == "dns:recognizer:1 (10.0.0.1:1)"


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("127.0.0.1:1", (("127.0.0.1", 1),)),
        ("dns:127.0.0.1:2", (("127.0.0.1", 2),)),
        ("dns:///127.0.0.1:3", (("127.0.0.1", 3),)),
        ("[::1]:4", (("::1", 4),)),
        ("no-such-host.invalid:1", ()),
        ("unix:/tmp/x", ()),
        ("127.0.0.1:x", ()),
    ],
)
def test_a_name_s_addresses(name: str, addresses: tuple[Endpoint, ...]) -> None:
    assert addresses_of(name) == addresses
