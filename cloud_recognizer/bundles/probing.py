"""Golden probes on a schedule, through the path that devices' chunks take, the batcher included.

A bundle that answers otherwise than where it was made is withdrawn: what changed is the machine, a
driver or a file, and its answers are worth nothing.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import numpy as np

from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.intake import Intake
from cloud_recognizer.metrics import FAILED, HELD, SKIPPED, Metrics
from cloud_recognizer.model import ExpressionModel
from cloud_recognizer.recognizer import Job, Outcome
from mien.background import background
from mien.errors import OverloadedError, ProbeError

_log = logging.getLogger(__name__)

# A probe that is not answered so long waits behind devices' chunks: it says nothing.
PATIENCE_S: Final = 30.0

OnFailed = Callable[[ExpressionModel, str], Awaitable[None]]


class Prober:
    """Probes each bundle in service every `interval_s`, one after the other."""

    def __init__(
        self,
        catalogue: Catalogue,
        intake: Intake,
        ledger: CreditLedger,
        on_failed: OnFailed,
        metrics: Metrics,
        interval_s: float,
    ) -> None:
        self._catalogue = catalogue
        self._intake = intake
        self._ledger = ledger
        self._on_failed = on_failed
        self._metrics = metrics
        self._interval_s = interval_s

    def running(self) -> AbstractAsyncContextManager[None]:
        """Probe while the context lasts."""
        return background(self._run(), "prober")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            for model in self._catalogue.served:
                try:
                    await self._probe(model)
                except Exception:  # a defect of ours must not end the probing
                    _log.exception("probing bundle %s failed", model.bundle_id[:12])

    async def _probe(self, model: ExpressionModel) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                difference = await self._difference(model)
        except (OverloadedError, TimeoutError) as error:
            self._metrics.probes.labels(SKIPPED).inc()
            _log.warning("bundle %s could not be probed: %r", model.bundle_id[:12], error)
        except ProbeError as error:
            self._metrics.probes.labels(FAILED).inc()
            if model in self._catalogue:
                await self._on_failed(model, str(error))
        else:
            self._metrics.probes.labels(HELD).inc()
            if model in self._catalogue.served:  # and has not gone meanwhile, with its labels
                self._metrics.probe_difference.labels(model.bundle_id).set(difference)
            if not self._catalogue.sound:
                _log.warning("the probe of bundle %s holds again", model.bundle_id[:12])
                self._catalogue.reinstate(model.bundle_id)

    async def _difference(self, model: ExpressionModel) -> float:
        payloads = model.golden.payloads
        flow = self._intake.flow("probe", max_chunks=len(payloads))
        answers: list[asyncio.Future[Outcome]] = []
        # A place of a call's each: devices keep the room that their credits promise.
        self._ledger.reserve(len(payloads))
        try:
            # Without a deadline: one that is late is skipped, not failed. See PATIENCE_S.
            answers += [self._intake.submit(Job(p), flow, math.inf) for p in payloads]
            outcomes = await asyncio.gather(*answers, return_exceptions=True)
        finally:
            for answer in answers:
                self._intake.withdraw(answer)
            self._ledger.release(len(payloads))
        rows: list[tuple[float, ...]] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise ProbeError(f"the golden probe cannot be answered: {outcome}") from outcome
            if outcome.error is not None or outcome.bundle_id != model.bundle_id:
                raise ProbeError(f"a golden payload was not recognised: {outcome.error}")
            rows += [face.probabilities for face in outcome.recognitions]
        return model.golden.difference(np.array(rows, np.float32))
