"""What carries the bytes that `benchmarks wire` counts: TLS proxies, and a cable that counts."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.network import Traffic
from benchmarks.tls import client_side, proxy, server_side, throw_away_certificate

CABLE = """
import socket, subprocess, sys
from benchmarks import network
network.leave_for_own_network()
code = '''
import socket
from benchmarks import network
network.leave_for_own_network()
print("ready", flush=True)
network.take_end(30)
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind((network.SERVER_ADDRESS, 9))
print("bound", flush=True)
for _ in range(2):  # while it listens, nothing is sent back
    print(len(receiver.recv(2000)), flush=True)
'''
far = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
assert far.stdout.readline() == "ready\\n"
network.lay_cable(far.pid)
assert far.stdout.readline() == "bound\\n"
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(b"x" * 100, (network.SERVER_ADDRESS, 9))  # the first one asks for the address
assert far.stdout.readline() == "100\\n"
before = network.traffic()
sender.sendto(b"x" * 1000, (network.SERVER_ADDRESS, 9))
assert far.stdout.readline() == "1000\\n"
print(network.traffic() - before)
"""


def test_the_cable_counts_ip_packets_and_nothing_else() -> None:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    done = subprocess.run(
        [sys.executable, "-c", CABLE], capture_output=True, text=True, timeout=120, check=False
    )
    if "no network namespace" in done.stderr or "install iproute2" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    # 1,000 bytes, the header of UDP and that of IP.
    assert done.stdout.strip() == str(Traffic(1000 + 8 + 20, 1, 0, 0)), done.stderr


async def test_what_goes_through_two_proxies_comes_out_as_it_was(tmp_path: Path) -> None:
    seen = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(200_000))
        writer.write(seen[0][::-1])
        await writer.drain()
        writer.close()

    certificate = throw_away_certificate("127.0.0.1", tmp_path)
    service = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = service.sockets[0].getsockname()
    outward = client_side(certificate)
    async with (
        service,
        proxy("127.0.0.1", target, inward=server_side(tmp_path)) as far,
        proxy("127.0.0.1", ("127.0.0.1", far), outward=outward) as near,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", near)
        sent = os.urandom(200_000)
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent[::-1]
        writer.close()
    assert seen == [sent]
