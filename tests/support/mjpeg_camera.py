"""A real camera by HTTP: motion JPEG, which dies, comes back, stalls and freezes as a test asks."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import cv2
import numpy as np

from tests.support.moving_face import Image, Scene
from tests.support.web import QuietHandler

FRAME_S = 0.02


def noise(index: int) -> Image:
    """A picture that is like no other, as a sensor's are."""
    return np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)


def walking(index: int) -> Image:
    """A face that walks to and fro."""
    step = index % 60
    return Scene().picture(30 + 2 * (step if step < 30 else 60 - step), 50 + index % 3)


class MjpegCamera:
    """What the camera films, and how it misbehaves.

    picture: index → what is seen. stalled: connections stay open and nothing comes.
    frozen: the same picture again and again.
    """

    def __init__(
        self, picture: Callable[[int], Image] = noise, *, frame_s: float = FRAME_S
    ) -> None:
        self.picture = picture
        self.frame_s = frame_s
        self.stalled = threading.Event()
        self.frozen = threading.Event()
        self.connections = 0
        self._index = 0
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/live"

    @contextmanager
    def on(self) -> Iterator[str]:
        """Switched on while the context lasts, at the same address each time; yields the URL."""
        camera = self
        off = threading.Event()

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802
                camera.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                while not off.wait(camera.frame_s):
                    if not camera.stalled.is_set():
                        try:
                            self.wfile.write(camera.part())
                        except OSError:
                            return

        server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.daemon_threads = True
        self._port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self.url
        finally:
            off.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def part(self) -> bytes:
        """The next frame as a part of the stream."""
        if not self.frozen.is_set():
            self._index += 1
        _, jpeg = cv2.imencode(".jpg", self.picture(self._index))
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        return head.encode() + jpeg.tobytes() + b"\r\n"
