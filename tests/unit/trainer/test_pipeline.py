"""A whole run in miniature: fit, stop and go on, export, evaluate."""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import legibility
from mien.bundle import ALL_FILES, BundleRepository, load_bundle
from mien.probe import check_payloads, load_probe, probe_levels
from mien.tables import CdfTables
from mien.trellis import HALF_STEPS
from tests.unit.trainer.datasets import write_fer
from trainer.calibration import calibrate, confidences
from trainer.cli import main, read_config
from trainer.config import (
    BaseConfig,
    EnhancementConfig,
    FitConfig,
    ModelConfig,
    StageConfig,
    SynthesisConfig,
)
from trainer.data.faces import EXPRESSIONS
from trainer.data.layout import read_split, read_train_and_valid
from trainer.evaluate import BUNDLE_FILES, analysed, evaluate_faces, recognised
from trainer.examples import as_float
from trainer.export import reconstruction_errors
from trainer.fit import fit
from trainer.level_tables import row_of
from trainer.loop import Loop
from trainer.models.consistency import Consistency
from trainer.networks import release
from trainer.run_folder import load_trained
from trainer.runtime import Network

MODEL = ModelConfig(4, (8, 8, 8, 8), 4, 16, 32, (8, 8, 8))
STAGE = StageConfig(epochs=2, batch_faces=16, learning_rate=0.02)
BASE = BaseConfig(epochs=2, batch_faces=16, level_bytes=(2, 5, 9))
ENHANCEMENT = EnhancementConfig(
    epochs=2,
    batch_faces=16,
    learning_rate=5e-3,
    layer_bytes=(10, 20),
    layer_channels=(8, 24),
    expression=0.1,
)

STAGES = ["classifier", "base", "enhancement", "synthesis"]
SYNTHESIS = SynthesisConfig(epochs=1, batch_faces=16, learning_rate=5e-3, bytes=25)
NO_SYNTHESIS = dataclasses.replace(SYNTHESIS, epochs=0)


def config(data: Path, out: Path) -> FitConfig:
    return FitConfig(
        *(data, out),
        threads=1,
        checkpoint_steps=3,
        model=MODEL,
        classifier=STAGE,
        base=BASE,
        enhancement=ENHANCEMENT,
        synthesis=SYNTHESIS,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fer(tmp_path_factory.mktemp("fer"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    fit(config(data, out))
    return out


@pytest.fixture(scope="module")
def bundle(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    arguments = ["export", "--run", str(run), "--data", str(data), "--bundle", str(folder)]
    assert main(arguments) == 0
    return folder


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stop_after", [4, 12, 17, 39])
def test_a_killed_run_ends_where_it_would_have_ended(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    taken = 0
    one_step = Loop._one_step

    def step_or_die(loop: Loop) -> dict[str, float]:
        nonlocal taken
        if taken == stop_after:
            raise KilledError
        taken += 1
        return one_step(loop)

    monkeypatch.setattr(Loop, "_one_step", step_or_die)
    with pytest.raises(KilledError):
        fit(config(data, tmp_path))
    monkeypatch.setattr(Loop, "_one_step", one_step)
    fit(config(data, tmp_path))
    for stage in STAGES:
        straight, resumed = (
            torch.load(out / f"{stage}.pt", weights_only=True) for out in (run, tmp_path)
        )
        for part in ("model", "averaged"):
            for name, value in straight[part].items():
                assert torch.equal(value, resumed[part][name]), f"{stage} {part} {name}"


def test_a_run_learns(data: Path, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == set(STAGES)
    # What the base draws: components, which are there from the start, have no part in it.
    drawn = [line["psnr_db_0"] for line in lines if "psnr_db_0" in line]
    assert drawn[-1] > drawn[0]


def test_the_configuration_comes_back_from_a_run(data: Path, run: Path) -> None:
    assert read_config(run, data) == dataclasses.replace(config(data, run))


def test_an_exported_bundle_is_whole(bundle: Path) -> None:
    loaded = load_bundle(bundle, ALL_FILES)
    probe = load_probe(loaded)
    check_payloads(loaded, probe)
    level = probe_levels(len(probe.symbols), loaded.tables)
    assert set(level.tolist()) == {0, 1, 2}
    said = Network(loaded.path("classifier.onnx"))(probe.symbols, level)
    assert np.allclose(said, probe.probabilities, atol=1e-5)
    assert np.allclose(said.sum(axis=1), 1, atol=1e-5)
    assert loaded.manifest.expressions == EXPRESSIONS
    assert BundleRepository(bundle.parent).preferred.bundle_id == loaded.bundle_id


def test_exported_networks_compute_what_was_trained(data: Path, run: Path, bundle: Path) -> None:
    trained = load_trained(config(data, run))
    base, enhancement = trained.base, trained.enhancement
    faces = read_split(data, "valid").pixels[:5]
    level = torch.tensor([0, 1, 2, 1, 0])
    x = torch.from_numpy(faces).float() / 255
    with torch.no_grad():
        y = base.analysis(x)
        y_hat, _, symbols = base.coded(y, level)
        e = enhancement.analysis(x, y_hat)
        layers = load_bundle(bundle, BUNDLE_FILES).layers()
        stood = layers.values(layers.chosen(e.numpy()))
        drawn = enhancement.synthesis(y_hat, torch.from_numpy(stood) / HALF_STEPS)
        alone = enhancement.synthesis(y_hat, 0 * e)
        train, _ = read_train_and_valid(data)
        errors = reconstruction_errors(trained, layers, train)
        consistency = Consistency(base.analysis, errors).eval()
        moved = consistency(drawn, y_hat, 0.5 / base.gains(level))
        said = base.classifier(y_hat, level).argmax(dim=1)
    coded = symbols.int().numpy(), level.int().numpy()
    analysis = Network(bundle / "analysis.onnx")
    assert analysis.names == ["y", "doubtful"]
    assert np.allclose(analysis(faces), y.numpy(), atol=0.05)
    found = Network(bundle / "classifier.onnx")(*coded)
    assert np.array_equal(found.argmax(axis=1), said.numpy())
    assert np.allclose(Network(bundle / "enhancement.onnx")(faces, *coded), e.numpy(), atol=0.05)
    synthesis = Network(bundle / "synthesis.onnx")
    assert not torch.allclose(moved, drawn, atol=0.01)
    for given, picture in ((stood, moved), (0 * stood, alone)):
        made = synthesis(*coded, given)
        assert made.dtype == np.uint8
        assert np.abs(made.astype(float) - picture.clamp(0, 1).numpy() * 255).max() <= 2


def test_an_exported_bundle_says_how_its_classifier_is_calibrated(bundle: Path, data: Path) -> None:
    loaded = load_bundle(bundle, BUNDLE_FILES)
    faces = read_split(data, "valid")
    y = analysed(loaded, faces.pixels[:])
    *_, probabilities = recognised(loaded, y, loaded.manifest.latent.default_level)
    calibration = loaded.manifest.calibration
    assert calibration == calibrate(probabilities, faces.majority)
    assert sum(calibration.expressions) == sum(calibration.confidences) == 40
    # What is estimated uses it, and what is answered does not.
    figures = evaluate_faces(loaded, faces)
    expected = np.mean(confidences(probabilities, calibration.temperature))
    assert figures["estimated_accuracy"] == pytest.approx(expected)
    assert figures["accuracy"] == np.mean(probabilities.argmax(axis=1) == faces.majority)


def test_no_path_of_the_machine_is_in_a_bundle(bundle: Path, run: Path) -> None:
    for file in bundle.iterdir():
        content = file.read_bytes()
        for path in (bundle.parent, run, Path(__file__).parents[3], Path.home()):
            assert str(path).encode() not in content, file.name


def test_evaluate_writes_what_it_prints(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "deep" / "figures.json"
    arguments = ["evaluate", "--bundle", str(bundle), "--data", str(data), "--json", str(target)]
    assert main(arguments) == 0
    figures = json.loads(target.read_text())
    wanted = (
        "faces accuracy estimated_accuracy macro_f1 payload_bytes_per_face psnr_db "
        "pixel_accuracy per_class"
    )
    assert set(wanted.split()) <= set(figures)
    assert figures["faces"] == 40
    assert figures["split"] == "valid"
    assert set(figures["per_class"]) == set(EXPRESSIONS)
    printed = capsys.readouterr().out
    assert all(word in printed for word in wanted.split() if word != "per_class")
    assert len(figures["levels"]) == 3
    default = figures["levels"][figures["default_level"]]
    assert default["accuracy"] == figures["accuracy"]
    # What was coded is the tables' ideal plus header, time, track and box.
    for level in figures["levels"]:
        overhead = level["payload_bytes_per_face"] - level["latent_ideal_bytes_per_face"]
        assert 0 < overhead < 6
    bytes_after = [figures[f"bytes_per_face_with_layers_after_{n}_layers"] for n in (0, 1)]
    assert bytes_after[0] == default["payload_bytes_per_face"]
    assert bytes_after[0] < bytes_after[1] < figures["bytes_per_face_with_layers"]


def test_tables_made_anew_are_those_of_the_export_and_the_bundle_is_whole(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    arguments = ["tables", "--bundle", str(bundle), "--data", str(data), "--out", str(again)]
    assert main(arguments) == 0
    assert (again / "tables.npz").read_bytes() == (bundle / "tables.npz").read_bytes()
    copy, original = load_bundle(again, BUNDLE_FILES), load_bundle(bundle, BUNDLE_FILES)
    assert check_payloads(copy, load_probe(copy)) is None
    assert copy.manifest.figures == original.manifest.figures
    assert copy.tables.contexts[..., 1].max() > 1
    assert (again / "MODEL_CARD.md").read_text() == (bundle / "MODEL_CARD.md").read_text()
    assert main(arguments) == 2  # the folder is there


def test_a_missing_dataset_is_an_error_for_people(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_row_keeps_the_likely_symbols_and_escapes_the_rest() -> None:
    pmfs = [[0, 0, 0.25, 0.5, 0.25, 0, 0], [0, 0, 0, 0.99, 0.01, 0, 0]]
    rows, offsets = zip(*(row_of(np.array(pmf), -3) for pmf in pmfs), strict=True)
    tables = CdfTables.from_rows(rows, offsets, (1, 1, 2))
    assert tables.offsets.tolist() == [-1, 0]
    assert tables.sizes.tolist() == [4, 3]
    first = tables.first_rows(0, 0)
    symbols = np.array([[[0, 0]]], np.int32)
    assert tables.ideal_bits(symbols, first) == pytest.approx(1.015, abs=0.01)
    far = np.array([[[30, 0]]], np.int32)
    assert tables.ideal_bits(far, first) > 16


@pytest.mark.parametrize(("part", "base_epochs"), [("pixel", 1), ("base", 1), ("enhancement", 0)])
def test_a_run_goes_on_from_another_with_other_settings(
    data: Path, run: Path, tmp_path: Path, part: str, base_epochs: int
) -> None:
    still = {"epochs": 1, "learning_rate": 0.0}
    base = {"epochs": base_epochs, "learning_rate": 0.0}
    settings = dataclasses.replace(
        config(data, tmp_path),
        start=run,
        base=dataclasses.replace(BASE, **base, placed=False),
        enhancement=dataclasses.replace(ENHANCEMENT, **still),
        synthesis=NO_SYNTHESIS,
    )
    fit(settings)
    before, after = load_trained(config(data, run)), load_trained(settings)
    kept = dict(getattr(after, part).named_parameters())
    for name, parameter in getattr(before, part).named_parameters():
        assert torch.allclose(parameter, kept[name], atol=1e-6), name


def test_a_teacher_that_was_released_is_not_trained_again(
    data: Path, run: Path, tmp_path: Path
) -> None:
    release(run, tmp_path / "released")
    once = {"epochs": 1}
    figures = fit(
        dataclasses.replace(
            config(data, tmp_path / "run"),
            teacher=tmp_path / "released" / "classifier.npz",
            base=dataclasses.replace(BASE, **once),
            enhancement=dataclasses.replace(ENHANCEMENT, **once),
        )
    )
    assert list(figures) == STAGES[1:]


def test_a_run_works_where_the_processor_multiplies_bfloat16(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.loop.has_bf16", lambda: True)
    figures = fit(
        dataclasses.replace(
            config(data, tmp_path),
            classifier=dataclasses.replace(STAGE, epochs=1),
            base=dataclasses.replace(BASE, epochs=1),
            enhancement=dataclasses.replace(ENHANCEMENT, epochs=1),
            synthesis=dataclasses.replace(SYNTHESIS, epochs=1),
        )
    )
    assert all(np.isfinite(value) for stage in figures.values() for value in stage.values())


def from_bundle(data: Path, run: Path, bundle: Path, out: Path, epochs: int) -> FitConfig:
    """A run that goes on from a bundle, with so many epochs for the base."""
    written = release(run, out / "released")
    teacher = next(path for path in written if path.name == "classifier.npz")
    return dataclasses.replace(
        config(data, out / "again"),
        bundle=bundle,
        teacher=teacher,
        base=dataclasses.replace(BASE, epochs=epochs),
    )


def test_the_base_of_a_bundle_is_kept_where_it_has_no_epochs(
    data: Path, run: Path, bundle: Path, tmp_path: Path
) -> None:
    again = from_bundle(data, run, bundle, tmp_path, epochs=0)
    assert list(fit(again)) == STAGES[2:]
    kept, trained = load_trained(again).base, load_trained(config(data, run)).base
    faces = as_float(read_split(data, "valid").pixels[:])
    level = torch.arange(len(faces)) % 3
    with torch.no_grad():
        y, wanted = kept.analysis(faces), trained.analysis(faces)
        # The weights of a bundle are in half precision.
        assert torch.allclose(y, wanted, atol=0.02)
        logits = kept.classifier(wanted, level)
        assert torch.allclose(logits, trained.classifier(wanted, level), atol=0.02)
    assert torch.allclose(kept.log_gains, trained.log_gains, atol=1e-5)
    made = tmp_path / "bundles" / "kept"
    arguments = ["export", "--run", str(again.out), "--data", str(data), "--bundle", str(made)]
    assert main(arguments) == 0
    card = " ".join((made / "MODEL_CARD.md").read_text().split())
    assert f"the teacher said: as in bundle {load_bundle(bundle).bundle_id}." in card


def test_base_and_enhancement_of_a_bundle_are_trained_further(
    data: Path, run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    seen: dict[str, float] = {}
    one_step = Loop._one_step

    def noted(loop: Loop) -> dict[str, float]:
        nonlocal steps
        if loop.step == 0:
            seen.update({name: each for name, each in loop.evaluate().items() if name not in seen})
        steps += 1
        return one_step(loop)

    monkeypatch.setattr(Loop, "_one_step", noted)
    again = from_bundle(data, run, bundle, tmp_path, epochs=2)
    assert list(fit(again)) == STAGES[1:]
    assert steps > 0
    # Where they begin, they answer and draw what the bundle does.
    figures = load_bundle(bundle, BUNDLE_FILES).manifest.figures
    for level, row in enumerate(figures["levels"]):
        assert seen[f"accuracy_{level}"] == pytest.approx(row["accuracy"], abs=0.05)
    assert seen["psnr_db_2"] == pytest.approx(figures["psnr_db"], abs=1.0)
    made = tmp_path / "bundles" / "further"
    arguments = ["export", "--run", str(again.out), "--data", str(data), "--bundle", str(made)]
    assert main(arguments) == 0
    card = " ".join((made / "MODEL_CARD.md").read_text().split())
    assert f"2 epochs from what bundle {load_bundle(bundle).bundle_id} has" in card


def test_an_enhancement_without_epochs_reads_a_base_that_was_trained_further(
    data: Path, run: Path, bundle: Path, tmp_path: Path
) -> None:
    kept = dataclasses.replace(ENHANCEMENT, epochs=0)
    for name, began in (("from the run", {"start": run}), ("from the bundle", {"bundle": bundle})):
        settings = dataclasses.replace(
            from_bundle(data, run, bundle, tmp_path / name, epochs=1),
            **{"start": None, "bundle": None, **began},  # type: ignore[arg-type]
            enhancement=kept,
            synthesis=NO_SYNTHESIS,
        )
        assert list(fit(settings)) == ["base"]
        before = load_trained(config(data, run)).enhancement.synthesis.components.weight
        after = load_trained(settings).enhancement.synthesis.components.weight
        assert torch.allclose(before, after, atol=2e-3)
        with pytest.raises(FileNotFoundError, match="synthesis"):
            load_trained(dataclasses.replace(settings, synthesis=SYNTHESIS))
    other = dataclasses.replace(settings, model=dataclasses.replace(MODEL, enhancement_channels=48))
    with pytest.raises(ValueError, match="networks are others"):
        fit(dataclasses.replace(other, out=tmp_path / "other"))
    alone = dataclasses.replace(config(data, tmp_path / "alone"), enhancement=kept)
    with pytest.raises(ValueError, match="has to be in a run or a bundle"):
        fit(alone)


def test_a_base_without_epochs_stays_as_it_was(data: Path, run: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        config(data, tmp_path),
        start=run,
        base=dataclasses.replace(BASE, epochs=0),
    )
    assert list(fit(settings)) == STAGES[2:]
    before, after = (load_trained(config(data, out)).base.state_dict() for out in (run, tmp_path))
    assert all(torch.equal(state, after[name]) for name, state in before.items())


def test_a_run_starts_from_a_run_that_is_whole_and_from_nothing_besides(
    data: Path, run: Path, bundle: Path, tmp_path: Path
) -> None:
    both = dataclasses.replace(config(data, tmp_path / "both"), start=run, bundle=bundle)
    with pytest.raises(ValueError, match="not from both"):
        fit(both)
    for part in ("config.json", "classifier.pt", "enhancement.pt"):
        (tmp_path / "torn").mkdir(exist_ok=True)
        (tmp_path / "torn" / part).write_bytes((run / part).read_bytes())
    torn = dataclasses.replace(config(data, tmp_path / "from torn"), start=tmp_path / "torn")
    with pytest.raises(FileNotFoundError, match="base"):
        fit(torn)


def test_a_card_says_what_another_task_learns_from_the_latents(bundle: Path) -> None:
    beyond = load_bundle(bundle, BUNDLE_FILES).manifest.figures["beyond"]
    assert {"level_0", "all_layers", "pixels", "pixel_features"} <= set(beyond)
    card = (bundle / "MODEL_CARD.md").read_text()
    for name, figures in beyond.items():
        row = f"| {name.replace('_', ' ')} | {figures['agreement_correlation']:.3f} "
        assert f"{row}| {figures['fer2013_accuracy']:.2%} |" in card


def test_other_eyes_read_the_pictures_and_are_compared_with_what_they_read_off_pixels(
    bundle: Path, tmp_path: Path
) -> None:
    options = argparse.Namespace(
        bundle=bundle,
        data=write_fer(tmp_path / "many", 160),
        faces=None,
        epochs=1,
        width=4,
        out=tmp_path,
    )
    figures = legibility.run(options)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (trained,) = (line["accuracy"] for line in lines if line["event"] == "epoch")
    assert figures["accuracy_of_pixels"] == trained
    for layers in range(3):
        read = figures[f"accuracy_after_{layers}_layers"]
        difference = figures[f"difference_after_{layers}_layers"]
        assert difference == pytest.approx(read - trained)
        low, high = (figures[f"difference_{end}_after_{layers}_layers"] for end in ("low", "high"))
        assert low <= difference <= high
    assert legibility.run(options) == figures, "what was trained is not trained again"


def test_a_bundle_with_other_networks_is_refused(data: Path, bundle: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(MODEL, latent_channels=8)
    settings = dataclasses.replace(config(data, tmp_path), bundle=bundle, model=other)
    with pytest.raises(ValueError, match="networks are others"):
        fit(settings)
