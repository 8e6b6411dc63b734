"""What scenarios in containers share: waiting for health and faces, a container's own metrics."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mien.tls import TlsFiles
from tests.support import podman as support
from tests.support.consumer import Consumer, consuming
from tests.support.lab import Lab, metric_at
from tests.support.lab_device import inside
from tests.support.podman import Podman
from tests.support.waiting import until

MARKS = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(support.why_not() is not None, reason=str(support.why_not())),
]
# An image may have 450 MB with what Python's slim image itself has, some 130; a stand-in has more.
OWN_MB = 450 - 130
CLIP_FACES = 120  # one in each frame
# Containers start slowly on a machine that has other work.
START_S = 900.0
_SAYS = (
    "import importlib.util as i, os, platform as p; "
    "print(p.machine(), os.getuid(), i.find_spec('torch') is not None)"
)


@contextmanager
def not_kept(store: Podman, dockerfile: str, image: str) -> Iterator[None]:
    """Build an image for as long as it is used: some gigabytes, most of them CUDA's."""
    store.build_file(dockerfile, image, "--layers=false", "--force-rm")
    try:
        yield
    finally:
        store.outside("rmi", image)


def until_healthy(podman: Podman, *containers: str) -> None:
    """Wait for what their own health checks say."""
    until(
        lambda: all(podman.is_healthy(one) for one in containers),
        lambda: "\n".join(podman.logs(one) for one in containers),
        patience_s=START_S,
        look_s=2.0,
    )


def until_ended(podman: Podman, container: str) -> None:
    """Wait until nothing runs in it and nothing starts it again; it must have ended well."""
    until(lambda: podman.pid(container) == 0, lambda: podman.logs(container), patience_s=START_S)
    assert podman.inspected(container)["State"]["ExitCode"] == 0, podman.logs(container)


def consumer(
    podman: Podman, lab: Lab, server: str, *recognizers: str, files: TlsFiles | None = None
) -> Consumer:
    """A consumer of these containers' recognitions that watches by now. files: None: plaintext."""
    with inside(podman.network):
        found = lab.stack.enter_context(consuming(server, lab.folder / "consumer.log", files))
    until(
        lambda: metric(podman, "watchers", *recognizers) >= 1,
        found.last_words,
        patience_s=START_S,
    )
    return found


def until_seen(podman: Podman, watching: Consumer, faces: int, device: str) -> None:
    """Wait until a consumer has seen so many faces. device: the container that sends them."""
    until(
        lambda: watching.seen.total() >= faces,
        lambda: f"{watching.seen.total()} seen; {podman.logs(device)}",
        patience_s=START_S,
    )


def metric(podman: Podman, name: str, *recognizers: str) -> float:
    """A metric of these containers, summed; those that do not answer have none."""
    return sum(metric_of(podman, name, one) for one in recognizers)


def metric_of(podman: Podman, name: str, recognizer: str) -> float:
    """A metric of one container; 0 where it does not answer."""
    try:
        return metric_at(f"{podman.address(recognizer)}:9464", name, podman.network)
    except OSError:
        return 0.0


def said_of_itself(podman: Podman, image: str, *more: str) -> list[str]:
    """The machine, the user's number and whether there is torch, as an image's Python has them."""
    run = ("run", "--rm", "--read-only", "--entrypoint=python", *more, image, "-c", _SAYS)
    return podman.run(*run).split()
