"""What an exit code means, the same in every command of mien."""

from enum import IntEnum

from mien.errors import (
    BundleError,
    ConfigError,
    MienError,
    PolicyError,
    SourceError,
    UnavailableError,
)


class ExitCode(IntEnum):
    """One number for each thing that a person, or a script, would do differently next."""

    OK = 0
    FAILURE = 1  # none of the below; the message and the logs say more
    USAGE = 2  # a flag, an argument or a setting to correct
    SOURCE = 3  # a camera, clip or image that cannot be read
    SERVER = 4  # the recognizer cannot be reached
    BUNDLE = 5  # the bundle is missing, damaged or unknown to the recognizer
    POLICY = 6  # the recognizer's policy refuses what was declared
    INTERRUPTED = 130  # as shells say it of a command ended by Ctrl-C


_BY_ERROR: tuple[tuple[type[MienError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (SourceError, ExitCode.SOURCE),
    (UnavailableError, ExitCode.SERVER),
    (BundleError, ExitCode.BUNDLE),
    (PolicyError, ExitCode.POLICY),
)


def exit_code(error: MienError) -> ExitCode:
    """The exit code that a domain error ends a command with."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILURE
