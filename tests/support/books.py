"""The books of a scenario: where every face that a device has found went, to the last one.

offered ─▶ accepted ─▶ recognised ─▶ seen by the consumer
   │          ├─▶ unanswered ─────▶ seen, but the device never heard of it
   │          ├─▶ unconfirmed ────▶ seen, or not: it was sent, and nobody knows
   │          ├─▶ dropped, each by a stated rule    ├─▶ rejected, each with a code
   │          └─▶ waits
   └─▶ not coded
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from edge_encoder.metrics import (
    CAMERA_NEWER,
    MAX_FACES,
    RATE_CONTROL,
    SPOOL_AGE,
    SPOOL_DAMAGED,
    SPOOL_FULL,
    UNANSWERED,
    UNCONFIRMED,
    UNREADABLE,
    UPLINK_FULL,
)
from tests.support.consumer import Face

RULES = (UPLINK_FULL, SPOOL_FULL, SPOOL_AGE, SPOOL_DAMAGED)
# Frames, or faces that were never offered.
NOT_OFFERED = (CAMERA_NEWER, UNREADABLE, MAX_FACES, RATE_CONTROL)


@dataclass(frozen=True)
class Account:
    """What one device, or one spool, says of its faces; numbers of faces.

    settled: the recognizer has them, by whatever answer; it is recognised, unanswered and rejected.
    unconfirmed: the recognizer may have them, or not.
    """

    offered: int
    accepted: int
    settled: int
    unanswered: int = 0
    unconfirmed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    waiting: int = 0

    @classmethod
    def of_run(cls, page: str) -> "Account":
        """By the /metrics of a run whose chunker is empty."""
        counts = samples_of(page)
        drops = _by_label(counts, "mien_edge_dropped_total")
        rejected = _by_label(counts, "mien_edge_rejected_faces_total")
        offered = round(counts["mien_edge_faces_total", ""])
        known = (*RULES, *NOT_OFFERED, UNANSWERED, UNCONFIRMED)
        not_coded = sum(count for reason, count in drops.items() if reason not in known)
        recognised = round(counts["mien_edge_recognised_faces_total", ""])
        return cls(
            offered=offered,
            accepted=offered - not_coded,
            settled=recognised + drops[UNANSWERED] + rejected.total(),
            unanswered=drops[UNANSWERED],
            unconfirmed=drops[UNCONFIRMED],
            dropped=Counter({rule: drops[rule] for rule in RULES if drops[rule]}),
            rejected=rejected,
            waiting=_waiting(counts),
        )

    @classmethod
    def of_spool(cls, contents: Mapping[str, Any]) -> "Account":
        """By the spool's own ledger, which outlives its runs: it says what was accepted."""
        faces = {name: book["faces"] for name, book in contents["books"].items()}
        accepted = faces.pop("accepted", 0)
        settled = faces.pop("settled", 0)
        return cls(accepted, accepted, settled, dropped=Counter(faces), waiting=contents["faces"])


@dataclass(frozen=True)
class Books:
    """Accounts of devices, and what the consumer has seen. missed: what it was too slow for."""

    accounts: tuple[Account, ...]
    seen: Counter[Face]
    missed: int = 0

    def _sum(self, name: str) -> int:
        return sum(getattr(account, name) for account in self.accounts)

    def _tally(self, name: str) -> Counter[str]:
        return sum((getattr(account, name) for account in self.accounts), Counter[str]())

    @property
    def differences(self) -> dict[str, int]:
        """Each equation with what its sides differ by; all 0 when the books balance.

        Of what is unconfirmed any number may have been seen, and no face beside it.
        """
        settled, rejected = self._sum("settled"), self._tally("rejected").total()
        unconfirmed = self._sum("unconfirmed")
        gone = settled + unconfirmed + self._tally("dropped").total() + self._sum("waiting")
        unseen = settled - rejected - len(self.seen) - self.missed
        return {
            "accepted - settled - unconfirmed - dropped - waiting": self._sum("accepted") - gone,
            "settled - rejected - seen - missed": unseen + min(max(-unseen, 0), unconfirmed),
            "seen more than once": self.seen.total() - len(self.seen),
        }

    @property
    def balance(self) -> bool:
        """Whether every face that was accepted is accounted for, and nothing waits."""
        return not any(self.differences.values()) and not self._sum("waiting")

    @property
    def lost(self) -> int:
        """Accepted faces that nobody saw and no rule has dropped."""
        return max(self.differences["settled - rejected - seen - missed"], 0) + max(
            self.differences["accepted - settled - unconfirmed - dropped - waiting"], 0
        )

    def rows(self) -> list[tuple[str, int]]:
        """What each column holds, in the way of a face."""
        settled, rejected = self._sum("settled"), self._tally("rejected")
        unanswered = self._sum("unanswered")
        return [
            ("offered", self._sum("offered")),
            ("accepted", self._sum("accepted")),
            *((f"dropped: {rule}", count) for rule, count in self._tally("dropped").items()),
            *((f"rejected: {code}", count) for code, count in rejected.items()),
            ("recognised", settled - rejected.total() - unanswered),
            ("recognised, answer lost", unanswered),
            ("unconfirmed", self._sum("unconfirmed")),
            ("waiting", self._sum("waiting")),
            ("seen by the consumer", len(self.seen)),
            ("missed by the consumer", self.missed),
            ("doubled", self.seen.total() - len(self.seen)),
            ("lost", self.lost),
        ]

    def __str__(self) -> str:
        rows = [*self.rows(), *self.differences.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(["", *(f"  {name:<{width}} {count:>8}" for name, count in rows)])


def samples_of(page: str) -> dict[tuple[str, str], float]:
    """What a /metrics page says: (name, value of its one label or "") → value."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _by_label(counts: Mapping[tuple[str, str], float], wanted: str) -> Counter[str]:
    found: Iterable[tuple[str, float]] = (
        (label, value) for (name, label), value in counts.items() if name == wanted
    )
    return Counter({label: round(value) for label, value in found if value})


def _waiting(counts: Mapping[tuple[str, str], float]) -> int:
    """At least 1 while anything waits, in faces where that is known."""
    in_memory = counts["mien_edge_queue_chunks", ""] + counts["mien_edge_in_flight_chunks", ""]
    return round(max(in_memory, counts["mien_edge_spool_faces", ""]))
