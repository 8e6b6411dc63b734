"""The probe set tells a bundle that works from one that does not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mien.bundle import Bundle, load_bundle, write_manifest
from mien.errors import BundleError, ManifestError, ProbeError
from mien.npz import write_npz
from mien.probe import Probe, check_payloads, golden_payloads, load_probe
from tests.support.tiny_bundle import SHAPE, make_tiny_bundle, tiny_symbols


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def probe(bundle: Bundle) -> Probe:
    return load_probe(bundle)


def test_a_probe_holds_what_was_written(bundle, probe):
    assert probe.faces.dtype == np.uint8
    assert probe.faces.shape[1:] == (1, 48, 48)
    assert probe.symbols.shape == (len(probe.faces), *SHAPE)
    assert probe.probabilities.shape == (len(probe.faces), 8)
    assert np.allclose(probe.probabilities.sum(axis=1), 1)
    assert probe.payloads == golden_payloads(bundle.tables, probe.symbols)


def test_a_sound_bundle_passes(bundle, probe):
    check_payloads(bundle, probe)


def test_symbols_that_are_not_those_of_the_payloads_fail(bundle, probe):
    wrong = probe.symbols.copy()
    wrong[-1, 0, 0, 0] += 1
    with pytest.raises(ProbeError, match="other symbols"):
        check_payloads(bundle, dataclasses.replace(probe, symbols=wrong))
    with pytest.raises(ProbeError, match="other symbols"):
        check_payloads(bundle, dataclasses.replace(probe, symbols=probe.symbols[:-1]))


def test_a_damaged_golden_payload_fails(bundle, probe):
    first, *others = probe.payloads
    damaged = (first[:-1] + bytes([first[-1] ^ 1]), *others)
    with pytest.raises(ProbeError, match="does not decode"):
        check_payloads(bundle, dataclasses.replace(probe, payloads=damaged))


def test_payloads_that_are_split_otherwise_fail(bundle, probe):
    wrong = golden_payloads(bundle.tables, probe.symbols[:4]) + golden_payloads(
        bundle.tables, probe.symbols[4:]
    )
    with pytest.raises(ProbeError, match="other bytes"):
        check_payloads(bundle, dataclasses.replace(probe, payloads=wrong))


def with_probe(bundle: Bundle, folder: Path, **changes: np.ndarray) -> Bundle:
    """The bundle's edge half, with a probe.npz that is changed and yet named by its manifest."""
    symbols = tiny_symbols(3)
    payloads = golden_payloads(bundle.tables, symbols)
    arrays = {
        "faces": np.zeros((3, 1, 48, 48), np.uint8),
        "symbols": symbols,
        "probabilities": np.full((3, 8), 0.125, np.float32),
        "payload": np.frombuffer(b"".join(payloads), np.uint8),
        "payload_sizes": np.array([len(payload) for payload in payloads], np.int32),
    }
    files = ["analysis.onnx", "tables.npz", "probe.npz"]
    for name in files:
        (folder / name).write_bytes(bundle.read(name))
    (folder / "probe.npz").write_bytes(write_npz(arrays | changes))
    manifest = bundle.manifest
    write_manifest(
        folder,
        name="changed",
        created="2026-01-01",
        expressions=manifest.expressions,
        image=manifest.image,
        latent=manifest.latent,
        figures={},
        files=files,
    )
    return load_bundle(folder, files)


def test_a_probe_written_by_hand_loads(bundle, tmp_path):
    changed = with_probe(bundle, tmp_path)
    check_payloads(changed, load_probe(changed))


@pytest.mark.parametrize(
    "changes",
    [
        {"faces": np.zeros((3, 1, 48, 47), np.uint8)},
        {"faces": np.zeros((2, 1, 48, 48), np.uint8)},
        {"faces": np.zeros((3, 1, 48, 48), np.float32)},
        {"symbols": np.zeros((3, 4, 3, 2), np.int32)},
        {"probabilities": np.zeros((3, 7), np.float32)},
        {"payload_sizes": np.array([1], np.int32)},
        {"payload_sizes": np.array([-1, 60, 2], np.int32)},
        {"payload_sizes": np.array([2**31 - 1, 2**31 - 1], np.int32)},
        {"more": np.zeros(1, np.int32)},
    ],
)
def test_a_probe_of_another_form_is_refused(bundle, tmp_path, changes):
    changed = with_probe(bundle, tmp_path, **changes)
    with pytest.raises(ManifestError, match=r"probe\.npz|\.npz file|array"):
        load_probe(changed)


def test_sizes_below_zero_that_add_up_are_refused(bundle, tmp_path):
    payload = golden_payloads(bundle.tables, tiny_symbols(3))[0]
    sizes = np.array([len(payload) + 5, -5], np.int32)
    with pytest.raises(BundleError, match="below zero"):
        load_probe(with_probe(bundle, tmp_path, payload_sizes=sizes))
