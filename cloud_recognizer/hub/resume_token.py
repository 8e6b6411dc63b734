"""Where a watcher was: the run of a hub, and a position in it. Opaque to those who carry it."""

import struct
from dataclasses import dataclass
from typing import Final, Self

from mien.errors import ProtocolError

_FORM: Final = struct.Struct(">BQQ")  # version, run, sequence
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """The message numbered `sequence`, from 1, of the hub's run `run`; both are 64 bits."""

    run: int
    sequence: int

    def __bytes__(self) -> bytes:
        return _FORM.pack(_VERSION, self.run, self.sequence)

    @classmethod
    def parse(cls, token: bytes) -> Self:
        """Raises ProtocolError for bytes that no server has given out."""
        if len(token) != _FORM.size or token[0] != _VERSION:
            raise ProtocolError(
                f"resume_token must be one that a response carried, {_FORM.size} bytes that begin "
                f"with {_VERSION}; got {len(token)} bytes"
            )
        _, run, sequence = _FORM.unpack(token)
        return cls(run, sequence)
