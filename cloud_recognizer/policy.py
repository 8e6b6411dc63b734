"""What the operator allows: which uses devices may declare, and how long anything may be held.

Without a file every use is allowed but those that the AI Act forbids (Regulation (EU) 2024/1689,
article 5(1)(f)), and who declares nothing is let in with a warning. A file says everything itself,
and what it does not say is refused. See docs/privacy.md and docs/adr/0024.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import yaml

from cloud_recognizer.config import CloudConfig
from mien.declaration import PROHIBITED, ContextOfUse, LegalException
from mien.errors import ConfigError, PolicyError
from mien.messages.upward import MAX_TEXT, Hello
from mien.settings import checked_settings

# Which part of a policy has refused.
CONTEXT: Final = "context"
EXCEPTION: Final = "exception"
PURPOSE: Final = "purpose"
NOTICE: Final = "notice"
CALLS: Final = "calls"
RULES: Final = (CONTEXT, EXCEPTION, PURPOSE, NOTICE, CALLS)

# Each with the contexts that it may refuse: what metrics show at zero from the start.
REFUSALS: Final = (
    *((EXCEPTION, context) for context in ContextOfUse if context in PROHIBITED),
    *((CONTEXT, context) for context in ContextOfUse if context not in PROHIBITED),
    *((rule, context) for rule in (PURPOSE, NOTICE) for context in ContextOfUse),
    (CALLS, ContextOfUse.UNDECLARED),
)

_LAW: Final = "Regulation (EU) 2024/1689, article 5(1)(f)"
_NOT_PROHIBITED: Final = [c.word for c in ContextOfUse if c not in PROHIBITED]


@dataclass(frozen=True)
class GrantedException:
    """One exception: some devices, one context, one kind, and why."""

    context: str
    """`workplace` or `education`."""
    kind: str
    """`medical` or `safety`, as the device declares it, too."""
    devices: list[str]
    """Shell patterns of the ids of the devices that it is granted to."""
    reason: str
    """Why it is granted, for those who ask later."""

    def __post_init__(self) -> None:
        if ContextOfUse.of("context", self.context) not in PROHIBITED:
            raise ConfigError(f"context must be one that needs an exception, got {self.context}")
        if LegalException.of("kind", self.kind) is LegalException.NONE:
            raise ConfigError("kind must be medical or safety, got none")
        if not self.devices:
            raise ConfigError("devices must name at least one pattern of device ids")
        if not 1 <= len(self.reason.strip()) <= MAX_TEXT:
            raise ConfigError(f"reason must have 1 to {MAX_TEXT} characters: it is kept as proof")

    def covers(self, hello: Hello) -> bool:
        """Whether it is for this device and for what it declares."""
        declared = (hello.context.word, hello.exception.word)
        return declared == (self.context, self.kind) and any(
            fnmatchcase(hello.device_id, pattern) for pattern in self.devices
        )


@dataclass(frozen=True)
class Policy:
    """What is allowed. The defaults are those of a file that does not say."""

    contexts: list[str]
    """Contexts of use that are allowed without an exception; `undeclared` may be one of them."""
    exceptions: list[GrantedException] = field(default_factory=list)
    """Exceptions for a place of work or education."""
    require_purpose: bool = True
    """Whether a device must say what the recognitions are for."""
    require_notice: bool = True
    """Whether a device must say how the people in view are informed."""
    undeclared_calls: bool = False
    """Whether Recognize, which declares nothing, may be called."""
    longest_retention_s: float = 0.0
    """Seconds that results or answers may be held at most, whatever the settings say."""
    longest_archive_days: float = 0.0
    """Days that payloads may be kept on disk at most; 0: not at all."""
    reconstruction: bool = False
    """Whether the settings may allow viewable faces."""
    require_audit: bool = False
    """Whether the settings must name an audit log, and require it."""

    def __post_init__(self) -> None:
        if not self.contexts:
            raise ConfigError("contexts must list at least one; nothing could be recognised")
        for word in self.contexts:
            if ContextOfUse.of("contexts", word) in PROHIBITED:
                raise ConfigError(
                    f"contexts must not list {word}, which {_LAW} forbids; grant an exception to "
                    "the devices that have a medical or safety reason"
                )
        if not self.longest_retention_s >= 0:  # nor NaN
            raise ConfigError(f"longest_retention_s must not be {self.longest_retention_s:g}")
        if not self.longest_archive_days >= 0:
            raise ConfigError(f"longest_archive_days must not be {self.longest_archive_days:g}")

    @classmethod
    def lenient(cls) -> Self:
        """The one without a file."""
        return cls(
            contexts=_NOT_PROHIBITED,
            require_purpose=False,
            require_notice=False,
            undeclared_calls=True,
            longest_retention_s=math.inf,
            longest_archive_days=math.inf,
            reconstruction=True,
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file. Raises ConfigError that names the file and the field."""
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"policy: {path} cannot be read: {error}") from error
        try:
            return cls.parse(document)
        except ConfigError as error:
            raise ConfigError(f"policy: {path}: {error}") from error

    @classmethod
    def parse(cls, document: object) -> Self:
        """From the content of a file. Raises ConfigError that names the field."""
        if not isinstance(document, Mapping):
            raise ConfigError("it must be a mapping, with the key contexts at least")
        values: dict[str, Any] = dict(document)
        granted = values.pop("exceptions", None) or []
        if not isinstance(granted, list):
            raise ConfigError("exceptions must be a list")
        exceptions = [_granted(position, one) for position, one in enumerate(granted, start=1)]
        return cls(**(checked_settings(cls, values) | {"exceptions": exceptions}))

    def admit(self, hello: Hello) -> str:
        """Why a device in a prohibited context is let in, "" for every other one.

        Raises PolicyError with a sentence for the device's owner.
        """
        granted = next((one for one in self.exceptions if one.covers(hello)), None)
        if granted is None:
            self._check_context(hello)
        if (self.require_purpose or granted) and not hello.purpose.strip():
            raise _refused(PURPOSE, hello, "a purpose is required: say what this is for (purpose)")
        if self.require_notice and not hello.notice.strip():
            raise _refused(
                NOTICE,
                hello,
                "a notice is required: say how the people in view are informed, by a text or an "
                "address (notice)",
            )
        return granted.reason if granted else ""

    def _check_context(self, hello: Hello) -> None:
        if hello.context in PROHIBITED:
            raise _refused(EXCEPTION, hello, _prohibited(hello))
        if hello.context.word not in self.contexts:
            declares = "no context of use was declared"
            if hello.context is not ContextOfUse.UNDECLARED:
                declares = f"the context {hello.context.word} is not allowed"
            allowed = ", ".join(word for word in self.contexts if word != "undeclared")
            raise _refused(CONTEXT, hello, f"{declares}; this server's policy allows {allowed}")

    def admit_call(self) -> None:
        """Raises PolicyError where Recognize is not for use."""
        if not self.undeclared_calls:
            raise PolicyError(
                "Recognize declares no context of use, and this server's policy asks for one; its "
                "operator can set undeclared_calls",
                CALLS,
                ContextOfUse.UNDECLARED.word,
            )

    def check(self, config: CloudConfig) -> None:
        """Raises ConfigError for a setting that keeps or shows more than is allowed."""
        for name, held_s in (
            ("retention_s", config.held_s),
            ("label_window_s", config.label_window_s),
        ):
            if held_s > self.longest_retention_s:
                raise ConfigError(
                    f"{name} is {held_s:g}, and the policy's longest_retention_s is "
                    f"{self.longest_retention_s:g}"
                )
        if config.archive_days is not None and config.archive_days > self.longest_archive_days:
            raise ConfigError(
                f"archive_days is {config.archive_days:g}, and the policy's longest_archive_days "
                f"is {self.longest_archive_days:g}"
            )
        if config.allow_reconstruction and not self.reconstruction:
            raise ConfigError("allow_reconstruction is set, and the policy has no reconstruction")
        if self.require_audit and not (config.audit_log and config.audit_required):
            raise ConfigError("the policy requires an audit: set audit_log and audit_required")


def _granted(position: int, values: object) -> GrantedException:
    if not isinstance(values, Mapping):
        raise ConfigError(f"exceptions, number {position}: it must be a mapping")
    try:
        return GrantedException(**checked_settings(GrantedException, values))
    except ConfigError as error:
        raise ConfigError(f"exceptions, number {position}: {error}") from error


def _prohibited(hello: Hello) -> str:
    said = (
        f"the device {hello.device_id} declares {hello.context.word}, where {_LAW} forbids "
        "inferring emotions but for medical or safety reasons; "
    )
    if hello.exception is LegalException.NONE:
        return said + (
            "if there is one, declare it (exception: medical or safety) with its purpose, and ask "
            "the server's operator to grant it in the policy"
        )
    return said + (
        f"the exception {hello.exception.word} that it declares is not granted to it by this "
        "server's policy: ask its operator"
    )


def _refused(rule: str, hello: Hello, message: str) -> PolicyError:
    return PolicyError(f"refused by policy: {message}", rule, hello.context.word)
