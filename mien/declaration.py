"""What a device declares of its use: where the people in view are, and what makes that lawful.

A closed vocabulary, so that a policy can decide by it; `Hello.purpose` and `Hello.notice` are its
owner's own words. proto/mien/v1/recognition.proto says what each word means.
"""

from enum import Enum
from typing import Final, Self

from mien.errors import ConfigError


class _Word(Enum):
    """The values are those of a proto enum; people, files and labels have the words."""

    @property
    def word(self) -> str:
        """As settings, logs and metrics have it."""
        return self.name.lower()

    @classmethod
    def of(cls, field: str, word: str) -> Self:
        """The one that a word means. Raises ConfigError that names the field and lists them all."""
        for member in cls:
            if member.word == word:
                return member
        known = ", ".join(member.word for member in cls)
        raise ConfigError(f"{field} must be one of {known}; got {word!r}")


class ContextOfUse(_Word):
    """Where the people in view are."""

    UNDECLARED = 0
    PUBLIC_SPACE = 1
    RETAIL = 2
    RESEARCH = 3
    HEALTHCARE = 4
    SAFETY = 5
    WORKPLACE = 6
    EDUCATION = 7
    HOME = 8
    DEMONSTRATION = 9


class LegalException(_Word):
    """What the AI Act leaves where it forbids inferring emotions."""

    NONE = 0
    MEDICAL = 1
    SAFETY = 2


# Regulation (EU) 2024/1689, article 5(1)(f).
PROHIBITED: Final = frozenset({ContextOfUse.WORKPLACE, ContextOfUse.EDUCATION})
