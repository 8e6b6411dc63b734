"""The rate control's decisions, carried out on a real chunker and encoder."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from edge_encoder.chunker import Chunk, Chunker, FrameTime
from edge_encoder.detector import Detector
from edge_encoder.faces import FaceEncoder
from edge_encoder.metrics import Metrics
from edge_encoder.pacing import PaceSettings, Pacing
from edge_encoder.rate_control import RateSettings
from edge_encoder.steadying import AnalysedFace
from mien.bitstream import Box
from mien.bundle import Bundle
from tests.unit.edge_encoder.test_chunker import feed, sizes

FACE_BYTES = 30.0
SETTINGS = PaceSettings(8, 0.5, 2.0, 1.0, RateSettings())


@dataclass
class Link:
    """What an uplink shows."""

    lag_s: float = 0.1
    held_back: bool = False
    connected: bool = True


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Paced:
    pacing: Pacing
    chunker: Chunker
    encoder: FaceEncoder
    metrics: Metrics
    clock: Clock

    def look(self, link: Link, seconds: float) -> None:
        """Ten frames of a face a second."""
        for _ in range(round(seconds * 10)):
            self.clock.now_s += 0.1
            self.pacing.look(link, 1)  # type: ignore[arg-type]  # what of an uplink is used

    def shown(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"mien_edge_{name}")


@pytest.fixture
def paced(bundle: Bundle, detector: Detector) -> Paced:
    chunker, clock, metrics = Chunker(bundle.codec(), 8, 0.5), Clock(), Metrics()
    encoder = FaceEncoder(detector, bundle)
    return Paced(
        *(Pacing(SETTINGS, [FACE_BYTES], chunker, encoder, metrics, clock),),
        *(chunker, encoder, metrics, clock),
    )


def test_nothing_changes_while_answers_are_prompt(paced: Paced) -> None:
    paced.look(Link(), 60)
    assert paced.shown("rate_rung") == 0
    assert paced.encoder.period_ms == 0


def test_late_answers_make_chunks_longer_and_faces_fewer_and_prompt_ones_undo_it(
    paced: Paced,
) -> None:
    paced.look(Link(lag_s=4.0), 10)
    assert paced.encoder.period_ms == 1000, "nothing was answered at all: as little as is allowed"
    assert sizes(feed(paced.chunker, [1] * 40, fps=10.0)) == [20], "two seconds of them"
    assert paced.shown("rate_rung") == 6
    paced.look(Link(), 60)
    assert paced.shown("rate_rung") == 0
    assert paced.encoder.period_ms == 0


def test_a_link_that_carries_some_is_used_for_that(paced: Paced) -> None:
    for _ in range(50):
        paced.pacing.answered(Chunk(bytes(5), ()))
        paced.look(Link(lag_s=4.0), 0.5)
    # 360 bytes a second, of which 288 are used: with 88 for a chunk every two seconds, ten faces
    # of 30 bytes are too many, five are not.
    assert paced.encoder.period_ms == 200


def test_without_a_connection_nothing_is_decided(paced: Paced) -> None:
    paced.look(Link(lag_s=60.0, connected=False), 60)
    assert paced.shown("rate_rung") == 0


def test_a_servers_byte_target_bounds_the_level_and_its_end_frees_it(
    bundle: Bundle, detector: Detector
) -> None:
    chunker, encoder = Chunker(bundle.codec(), 8, 0.5), FaceEncoder(detector, bundle)
    pacing = Pacing(SETTINGS, [4.0, 9.0, 20.0], chunker, encoder, Metrics(), Clock())
    for target, level in ((10.0, 1), (1.0, 0), (0.0, 2)):
        pacing.aim(target)
        latent = np.zeros(bundle.tables.shape, np.float32)
        face = AnalysedFace(0, 1, Box(0, 0, 9, 9), latent.astype(np.int32), 2, latent)
        chunker.add(FrameTime(0, 0.0), [face])
        (chunk,) = chunker.flush()
        assert bundle.codec().decode(chunk.payload)[0].level == level


def test_a_byte_target_begins_a_ladder_anew_and_its_rung_is_shown(paced: Paced) -> None:
    paced.look(Link(lag_s=10.0), 10)
    assert (paced.shown("rate_rung") or 0) > 0
    paced.pacing.aim(5.0)
    assert paced.shown("rate_rung") == 0


def test_another_bundles_figures_begin_a_ladder_anew_and_its_own_do_not(
    paced: Paced, bundle: Bundle
) -> None:
    paced.pacing.follow(bundle)
    paced.look(Link(lag_s=10.0), 10)
    rung = paced.shown("rate_rung") or 0
    assert rung > 0
    paced.pacing.follow(bundle)
    assert paced.shown("rate_rung") == rung
    figures = {"levels": [{"payload_bytes_per_face": size} for size in (5.0, 7.0, 40.0)]}
    other = replace(bundle, manifest=replace(bundle.manifest, figures=figures))
    paced.pacing.follow(other)
    assert paced.shown("rate_rung") == 0


def test_chunks_are_stale_only_where_a_connection_has_lasted(paced: Paced) -> None:
    paced.look(Link(), 9)
    assert paced.pacing.stale_s == math.inf
    paced.look(Link(), 2)
    assert paced.pacing.stale_s == 10.0
    paced.look(Link(connected=False), 1)
    assert paced.pacing.stale_s == math.inf


def test_a_server_that_takes_smaller_chunks_is_reckoned_with(paced: Paced) -> None:
    paced.pacing.aim(0.0, 5)
    paced.look(Link(lag_s=4.0), 10)
    assert sizes(feed(paced.chunker, [1] * 10, fps=10.0)) == [5, 5]
