"""Who is let in: the policy's word, counted and logged."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cloud_recognizer.metrics import Metrics
from cloud_recognizer.policy import REFUSALS, Policy
from mien.declaration import ContextOfUse
from mien.errors import PolicyError
from mien.messages.upward import Hello

_log = logging.getLogger(__name__)


class Admission:
    """Asks the policy before anything of a device or a call is taken in."""

    def __init__(self, policy: Policy, metrics: Metrics) -> None:
        self._policy = policy
        self._metrics = metrics
        for rule, context in REFUSALS:
            metrics.refused.labels(rule, context.word)

    def admit(self, hello: Hello) -> None:
        """Raises PolicyError where the policy does not allow what a device declares."""
        with self._counting_refusals():
            granted = self._policy.admit(hello)
        self._metrics.admitted.labels(hello.context.word).inc()
        level = logging.WARNING if hello.context is ContextOfUse.UNDECLARED else logging.INFO
        _log.log(
            level,
            "device %s is let in: context %s, purpose %r, notice %r%s",
            *(hello.device_id, hello.context.word, hello.purpose, hello.notice),
            f", exception {hello.exception.word}, granted for {granted!r}" if granted else "",
        )

    def admit_call(self) -> None:
        """Raises PolicyError where Recognize, which declares nothing, may not be called."""
        with self._counting_refusals():
            self._policy.admit_call()

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        try:
            yield
        except PolicyError as error:
            self._metrics.refused.labels(error.rule, error.context).inc()
            raise
