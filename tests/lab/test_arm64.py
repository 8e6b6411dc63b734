"""The same integers on arm64: payloads of x86-64 decoded, and coded again, under qemu."""

import json
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.layer_paths import Layered, layer_tables, random_layers
from benchmarks.paths import random_payloads, random_tables
from mien.bundle import ALL_FILES, Bundle, load_bundle
from mien.cli.released import chosen_bundle
from mien.codec import ChunkCodec
from mien.layers import LayersCodec
from mien.probe import GOLDEN_ID, Probe, golden_payloads, load_probe
from mien.tables import CdfTables
from tests.contract import fixtures
from tests.support import arm64, decoded
from tests.support.arm64 import Arm64
from tests.support.lab import Lab

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(arm64.why_not() is not None, reason=str(arm64.why_not())),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="is compared with x86-64"),
]
TIMEOUT_S = 3000.0
LONG = pytest.mark.long


@pytest.fixture(scope="module")
def released() -> Bundle:
    return load_bundle(chosen_bundle(None), ALL_FILES)


def machine(*wheels: str) -> Arm64:
    try:
        return Arm64().with_wheels(*wheels)
    except subprocess.SubprocessError as error:
        pytest.skip(f"an arm64 system could not be fetched: {error}")


def laid_out(folder: Path, tables: CdfTables, bundle_id: str, payloads: Sequence[bytes]) -> Path:
    folder.mkdir()
    tables.save(folder / "tables.npz")
    document = {"bundle_id": bundle_id, "payloads": [payload.hex() for payload in payloads]}
    (folder / "payloads.json").write_text(json.dumps(document))
    return folder


def golden(folder: Path) -> Path:
    tables = CdfTables.load(fixtures.TABLES.read_bytes())
    payloads = [payload for _, payload in fixtures.read_chunks()]
    return laid_out(folder, tables, fixtures.read_bundle_id(), payloads)


def random_ones(folder: Path, count: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    tables = random_tables(random)
    codec = ChunkCodec(tables, GOLDEN_ID)
    return laid_out(folder, tables, GOLDEN_ID, list(random_payloads(codec, tables, random, count)))


def layers_laid_out(folder: Path, tables: CdfTables, chunks: Iterable[Layered]) -> Path:
    folder.mkdir()
    tables.save(folder / "tables.npz")
    document = [(c.payload.hex(), c.faces, [one.hex() for one in c.layers]) for c in chunks]
    (folder / decoded.LAYERS).write_text(json.dumps(document))
    return folder


def golden_layers(folder: Path) -> Path:
    tables = CdfTables.load(fixtures.LAYER_TABLES.read_bytes())
    golden = fixtures.read_layers()
    chunks = [Layered(one.payload, len(one.enhancements), one.layers) for one in golden]
    return layers_laid_out(folder, tables, chunks)


def random_layered_ones(folder: Path, count: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    tables = layer_tables(random)
    return layers_laid_out(
        folder, tables[0], random_layers(LayersCodec(tables), tables[0], random, count)
    )


@pytest.mark.parametrize(
    ("path", "wheels"),
    [
        ("plain", ["numpy"]),
        ("lockstep", ["numpy"]),
        pytest.param("compiled", ["numpy", "numba"], marks=LONG),
    ],
)
def test_arm64_decodes_to_the_same_symbols_and_codes_the_same_bytes(
    lab: Lab, released: Bundle, tmp_path: Path, path: str, wheels: list[str]
) -> None:
    probe = load_probe(released)
    folders = [
        golden(tmp_path / "golden"),
        laid_out(tmp_path / "probe", released.tables, GOLDEN_ID, probe.payloads),
        golden_layers(tmp_path / "layers"),
        *(random_ones(tmp_path / f"random{seed}", 300, seed) for seed in range(3)),
        *(random_layered_ones(tmp_path / f"layers{seed}", 100, seed) for seed in range(3)),
    ]
    arguments = ["-m", "tests.support.decoded", path, *map(str, folders)]
    said = machine(*wheels).run(arguments, wheels, TIMEOUT_S)
    there = [json.loads(line) for line in said.splitlines()]
    assert {line.pop("machine") for line in there} == {"aarch64"}
    here = [decoded.decoded(folder, "plain") for folder in folders]
    assert there == here
    assert here[0]["wrong"] == here[1]["wrong"] == here[2]["wrong"] == 0
    assert here[2]["whole"] == len(fixtures.read_layers())
    assert sum(one["wrong"] for one in here) > 300  # damaged ones are refused alike
    lab.entry.figures = {"chunks": float(sum(one["whole"] + one["wrong"] for one in here))}


@pytest.mark.long
def test_what_arm64_analyses_and_codes_x86_64_decodes(
    lab: Lab, released: Bundle, tmp_path: Path
) -> None:
    wheels = ["numpy", "onnxruntime"]
    arguments = ["-m", "tests.support.analysed", str(released.folder), str(tmp_path / "there.npy")]
    machine(*wheels).run(arguments, wheels, TIMEOUT_S)
    symbols = np.load(tmp_path / "there.npy", allow_pickle=False)
    probe: Probe = load_probe(released)
    codec = ChunkCodec(released.tables, GOLDEN_ID)
    payloads = golden_payloads(released.tables, symbols)
    again = [face.symbols for payload in payloads for face in codec.decode(payload)]
    assert np.array_equal(again, symbols)
    # Floats may differ in the last bit, and a symbol then be rounded the other way: a device
    # codes what it has, so that is no error, but it is rare.
    differ = np.abs(symbols - probe.symbols)
    assert differ.max() <= 1
    assert differ.mean() < 1e-3
    lab.entry.figures = {"symbols": float(differ.size), "rounded otherwise": float(differ.sum())}
