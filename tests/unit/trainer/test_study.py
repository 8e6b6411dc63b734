"""The stages of a study, and the whole of it in miniature."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.trainer.datasets import drawn, votes_for, write_fer, write_rafdb
from trainer.cli import _parser, _with_preset, main
from trainer.data.errors import DatasetError
from trainer.data.faces import FaceSet
from trainer.data.photos import read_photos
from trainer.loop import Loop
from trainer.models.hyperprior import VariableRateHyperprior
from trainer.models.resnet import ResNet18
from trainer.networks import averaged_states
from trainer.schedule import optimizer_of
from trainer.study.config import LatentsConfig, TuneConfig
from trainer.study.cost import classifier_macs, encoder_macs
from trainer.study.latents import LatentsStage, latents_head
from trainer.study.runs import Run, _start_head, _starts, at_bytes
from trainer.study.tune import TuneStage, feature_distance

NETWORKS = Path(__file__).parents[3] / "bundles" / "study-two-cores"
RATES = 2
TWO = {"lmbdas": (1e-3, 1e-4), "start_gains": (1.0, 1.0)}
CODECS = ("jpeg", "webp", "avif", "jxl")


def tune(config: TuneConfig, train_classifier: bool) -> TuneStage:
    torch.manual_seed(0)
    codec, network = VariableRateHyperprior(8, 12, 1, RATES), ResNet18(1, 48, 4, 8, 0.0)
    return TuneStage("tune", config, codec, network, train_classifier)


def one_step(stage: TuneStage) -> dict[str, float]:
    """Takes a step of plain gradient descent, and returns its figures."""
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(drawn(8)[:, None]).float() / 255
    votes = torch.from_numpy(votes_for(8, 0)[:, :8] / 10.0).float()
    loss, figures = stage.loss(stage.prepare(x, votes, 0.5, generator), 0.5)
    loss.backward()
    with torch.no_grad():
        for parameter in stage.model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    return {name: float(figure) for name, figure in figures.items()}


def changed(before: dict[str, torch.Tensor], network: torch.nn.Module) -> bool:
    after = network.state_dict()
    return any(not torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("train_classifier", [False, True])
def test_finetuning_leaves_the_classifier_alone_and_joint_training_does_not(
    train_classifier: bool,
) -> None:
    stage = tune(TuneConfig(**TWO), train_classifier)
    codec, network = (copy.deepcopy(n.state_dict()) for n in (stage.codec, stage.classifier))
    one_step(stage)
    assert changed(codec, stage.codec)
    assert changed(network, stage.classifier) == train_classifier


def latents(config: LatentsConfig) -> LatentsStage:
    torch.manual_seed(0)
    head = latents_head(12, 3, 16, 8, 0.0)
    return LatentsStage(config, VariableRateHyperprior(8, 12, 1, RATES, "relu"), head)


def gradients(stage: LatentsStage, progress: float) -> set[str]:
    """The parts of the codec, and the head, that a step's loss moves."""
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(drawn(8)[:, None]).float() / 255
    votes = torch.full((8, 8), 1 / 8)
    loss, _ = stage.loss(stage.prepare(x, votes, progress, generator), progress)
    loss.backward()
    moved = {n: p.grad.abs().sum() for n, p in stage.model.named_parameters() if p.grad is not None}
    return {".".join(name.split(".")[:2]) for name, size in moved.items() if size > 0}


def test_latents_are_taught_without_the_synthesis_and_it_draws_what_they_say_at_the_end() -> None:
    early = gradients(latents(LatentsConfig(**TWO, synthesis_share=0.3)), 0.5)
    assert {"codec.g_a", "codec.h_s", "codec.gain", "head.1"} <= early
    assert "codec.g_s" not in early
    late = gradients(latents(LatentsConfig(**TWO, synthesis_share=0.3)), 0.8)
    assert "codec.g_s" in late


def test_what_latents_say_gets_no_gradient_from_how_it_is_drawn() -> None:
    def analysis_gradient(distortion: float) -> torch.Tensor:
        stage = latents(LatentsConfig(**TWO, synthesis_share=1.0, distortion=distortion))
        gradients(stage, 0.8)
        return stage.codec.g_a[0].weight.grad

    assert torch.equal(analysis_gradient(0.0), analysis_gradient(100.0))


def test_tuning_goes_on_teaching_by_the_latents_where_it_has_a_head() -> None:
    torch.manual_seed(0)
    codec, network = VariableRateHyperprior(8, 12, 1, RATES), ResNet18(1, 48, 4, 8, 0.0)
    head = latents_head(12, 3, 16, 8, 0.0)
    config = TuneConfig(**TWO, latents=1.0, features=0, cross_entropy=0, distortion=0)
    stage = TuneStage("tune", config, codec, network, False, head)
    before = [head[1].weight.clone(), codec.g_a[0].weight.clone()]
    one_step(stage)
    assert not torch.equal(before[0], head[1].weight)
    assert not torch.equal(before[1], codec.g_a[0].weight)


def test_the_rates_weight_rises_to_what_was_asked() -> None:
    stage = latents(LatentsConfig(**TWO, rate_warmup_share=0.5))
    assert stage._warmth(0.0) == pytest.approx(0.01)
    assert stage._warmth(0.25) == pytest.approx(0.1)
    assert stage._warmth(0.5) == stage._warmth(1.0) == 1


@pytest.mark.parametrize("rounded", [False, True])
def test_the_rate_is_that_of_noisy_or_of_rounded_latents(rounded: bool) -> None:
    nothing_else = {"features": 0.0, "cross_entropy": 0.0, "distortion": 0.0, "balance": 0.0}
    stage = tune(TuneConfig(**TWO, **nothing_else, rounded_rate=rounded), False)
    x = torch.from_numpy(drawn(8)[:, None]).float() / 255
    generator = torch.Generator().manual_seed(0)
    batch = stage.prepare(x, torch.full((8, 8), 1 / 8), 0.5, generator)
    faces, _, rates, _, _, *noise = batch
    coded = stage.codec(faces, rates, *noise)
    bits = coded.rounded_bits if rounded else coded.bits
    assert not torch.allclose(coded.bits, coded.rounded_bits)
    expected = (torch.tensor(TWO["lmbdas"])[rates] * bits).mean()
    loss, _ = stage.loss(batch, 0.5)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    loss.backward()
    assert float(stage.codec.h_s[-1].bias.grad.abs().sum()) > 0


def test_weights_of_the_rate_follow_byte_targets() -> None:
    stage = tune(TuneConfig(**TWO, target_bytes=(20, 200)), False)
    shown = stage.stepped(
        {"mse": 0.1, "bytes_0": 40, "bytes_1": 100, "accuracy_0": 0, "accuracy_1": 0}, 0.5
    )
    assert shown["lmbda_0"] > 1e-3
    assert shown["lmbda_1"] < 1e-4


def test_weights_of_the_rate_follow_accuracy_targets() -> None:
    stage = tune(TuneConfig(**TWO, target_accuracy=(0.5, 0.5)), False)
    shown = stage.stepped(
        {"mse": 0.1, "bytes_0": 40, "bytes_1": 100, "accuracy_0": 0.2, "accuracy_1": 0.9}, 0.5
    )
    assert shown["lmbda_0"] < 1e-3, "too inaccurate: bytes weigh less"
    assert shown["lmbda_1"] > 1e-4, "more accurate than asked: bytes weigh more"


def test_weights_without_a_target_stay() -> None:
    stage = tune(TuneConfig(**TWO), False)
    shown = stage.stepped({"mse": 0.1, "bytes_0": 40, "bytes_1": 100}, 0.5)
    assert shown["lmbda_0"] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"lmbdas": (1e-3,)},
        {"target_bytes": (1.0, 2.0, 3.0)},
        {"target_bytes": (1.0, 2.0), "target_accuracy": (0.5, 0.6)},
    ],
)
def test_settings_that_do_not_fit_the_rates_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rates|one of them"):
        tune(TuneConfig(**{**TWO, **settings}), False)


def test_joint_training_is_taught_by_the_classifier_as_it_was() -> None:
    config = TuneConfig(features=1.0, cross_entropy=0.0, clean_share=1.0, **TWO)
    stage = tune(config, train_classifier=True)
    original = copy.deepcopy(stage.original.state_dict())
    faces = torch.from_numpy(drawn(8)[:, None]).float() / 255
    votes = torch.full((8, 8), 1 / 8)
    clean = torch.ones(8, dtype=torch.bool)
    stage.classifier.eval()
    with torch.no_grad():
        _, distances, held = stage._classified(faces, faces, votes, clean)
    assert float(distances.abs().max()) == pytest.approx(0, abs=1e-6)
    assert float(held) == pytest.approx(0, abs=1e-6)
    one_step(stage)
    with torch.no_grad():
        _, distances, held = stage._classified(faces, faces, votes, clean)
    assert float(distances.min()) > 0, "it has moved away from what it was"
    assert float(held) > 0
    assert not changed(original, stage.original)


def test_only_the_last_stages_are_compared_where_the_settings_say_so() -> None:
    with pytest.raises(ValueError, match="feature_stages must be 1 to 4, not 5"):
        tune(TuneConfig(feature_stages=5, **TWO), train_classifier=False)
    faces = torch.from_numpy(drawn(8)[:, None]).float() / 255
    votes, clean = torch.full((8, 8), 1 / 8), torch.zeros(8, dtype=torch.bool)
    by_stages = {}
    for stages in (1, 4):
        stage = tune(TuneConfig(feature_stages=stages, **TWO), train_classifier=False)
        meant, made = (stage.original.features(x)[-stages:] for x in (faces, 1 - faces))
        _, by_stages[stages], _ = stage._classified(1 - faces, faces, votes, clean)
        assert torch.allclose(by_stages[stages], feature_distance(made, meant))
    assert not torch.allclose(by_stages[1], by_stages[4])


def test_the_prior_learns_at_its_own_rate_and_the_classifier_at_its() -> None:
    stage = tune(TuneConfig(prior_share=5.0, classifier_share=0.2, **TWO), train_classifier=True)
    names = {id(parameter): name for name, parameter in stage.model.named_parameters()}
    scales = {
        names[id(parameter)]: group["scale"]
        for group in optimizer_of(stage).param_groups
        for parameter in group["params"]
    }
    assert scales["codec.h_a.0.weight"] == scales["codec.h_s.0.bias"] == 5.0
    assert scales["codec.g_a.0.weight"] == scales["codec.gain"] == 1.0
    assert scales["classifier.head.weight"] == 0.2


def test_a_gradient_that_is_no_number_ends_training_and_spoils_no_checkpoint(
    tmp_path: Path,
) -> None:
    stage = tune(TuneConfig(epochs=1, batch_faces=8, optimizer="adamw", **TWO), False)
    votes = (votes_for(16, 0)[:, :8] / 10).astype(np.float32)
    faces = FaceSet(drawn(16)[:, None], votes)
    loop = Loop(stage, Run(tmp_path, 0, 1), faces, faces)
    with torch.no_grad():
        stage.codec.g_s[0].weight[0, 0, 0, 0] = float("nan")
    before = copy.deepcopy(loop.averaged.state_dict())
    with pytest.raises(ValueError, match="tune, step 0: a gradient is infinite or no number"):
        loop.fit()
    assert not loop.checkpoint.exists()
    assert all(torch.equal(v, before[n]) for n, v in loop.averaged.state_dict().items())


def test_feature_distance_is_relative_to_the_power_of_what_was_meant() -> None:
    meant = [torch.full((2, 3), 4.0), torch.full((2, 3), 0.1)]
    assert feature_distance(meant, meant).tolist() == [0, 0]
    halfway = [torch.stack([m[0] * 1.5, m[1]]) for m in meant]
    assert feature_distance(halfway, meant).tolist() == pytest.approx([0.25, 0])


def test_a_curve_is_read_between_rates_by_the_logarithm_of_the_bytes() -> None:
    figures = {"bytes_0": 10.0, "bytes_1": 1000.0, "accuracy_0": 0.5, "accuracy_1": 0.7}
    read = at_bytes({**figures, "psnr_db_0": 20.0, "psnr_db_1": 30.0}, 2, 100)
    assert read == pytest.approx({"bytes": 100, "accuracy": 0.6, "psnr_db": 25})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for index in range(3):
        coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 120)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_is_always_the_same_and_unlike_others(photos: Path, channels: int) -> None:
    crops = read_photos(photos, 50, 48, channels, seed=1)
    some = crops.pixels[np.array([7, 3, 7])]
    assert some.shape == (3, channels, 48, 48)
    assert np.array_equal(some[0], some[2])
    assert not np.array_equal(some[0], some[1])
    assert len(crops) == len(crops.votes) == 50


def test_a_folder_without_photographs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no photograph"):
        read_photos(tmp_path, 10, 48, 1, seed=0)


@pytest.fixture(scope="module")
def study(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study by the smoke preset, on drawn faces."""
    root = tmp_path_factory.mktemp("study")
    write_fer(root / "data", train=96, valid=40)
    arguments = ["--data", str(root / "data"), "--photos", str(photos), "--out", str(root / "run")]
    preset = ["study", "--preset", "smoke", "--results", str(root / "results"), "--threads", "1"]
    assert main([*preset, *arguments]) == 0
    return root


@pytest.mark.timeout(900)
def test_a_study_measures_every_method_at_every_rate(study: Path) -> None:
    points = {path.stem for path in (study / "run" / "points").glob("*.npz")}
    once = {"uncompressed.0.0", "uncompressed-mirrored.0.0", "edge-only.0.0", "truth"}
    once |= {f"joint-on-uncompressed.{seed}.0" for seed in (0, 1)}
    coded = {*CODECS, *(f"{name}-adapted" for name in CODECS)}
    single = {"pretrained", "adapted", *coded, "avif-bare", "avif-bare-adapted"}
    expected = once | {f"{name}.0.{rate}" for name in single for rate in range(8)}
    for name in ("finetuned", "joint", "original-on-joint"):
        expected |= {f"{name}.{seed}.{rate}" for seed in (0, 1) for rate in range(8)}
    assert points == expected


def test_a_study_leaves_a_report_with_its_plots(study: Path) -> None:
    results = json.loads((study / "results" / "results.json").read_text())
    assert results["faces"] == 40
    pages = {path.name for path in (study / "results").iterdir()}
    assert {"README.md", "rate-accuracy.svg", "reconstructions.png"} <= pages
    stages = {entry["stage"] for entry in json.loads((study / "run" / "runs.json").read_text())}
    assert {"pretrain", "classifier", "finetune", "joint", "adapt-jpeg", "edge"} <= stages


def test_a_finished_study_is_not_trained_or_measured_again(study: Path, photos: Path) -> None:
    files = {p: p.stat().st_mtime_ns for p in (study / "run").rglob("*.pt")}
    points = {p: p.stat().st_mtime_ns for p in (study / "run" / "points").glob("joint.*.npz")}
    arguments = ["--data", str(study / "data"), "--photos", str(photos)]
    out = ["--out", str(study / "run"), "--threads", "1"]
    assert main(["study", "--preset", "smoke", *arguments, *out]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in {**files, **points}.items())


def test_released_networks_do_what_the_trained_ones_do(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["release", "--out", str(study / "run"), "--networks", str(tmp_path)]) == 0
    assert str(tmp_path / "seed-1" / "joint.npz") in capsys.readouterr().out
    trained = averaged_states(study / "run" / "seed-1" / "joint.pt")
    released = averaged_states(tmp_path / "seed-1" / "joint.pt")
    assert trained.keys() == released.keys()
    for name, value in trained.items():
        largest = float(value.abs().max()) if value.numel() else 0.0
        # By the largest of its own kind: a bound of 1e-9 must not become 0.
        assert torch.allclose(value.float(), released[name].float(), rtol=0, atol=1e-3 * largest)
    assert (tmp_path / "seed-1" / "joint.json").is_file(), "a study on it takes it for done"


def test_the_released_stages_are_where_a_study_by_their_preset_goes_on(tmp_path: Path) -> None:
    folders = ["--data", str(tmp_path), "--photos", str(tmp_path), "--out", str(NETWORKS)]
    parser = _parser()
    arguments = _with_preset(["finetune", "--preset", "two-cores", *folders])
    config = parser.instantiate(parser.parse_args(arguments)).finetune
    assert config.finetune.start == "latents"
    codec, network = _starts(config, config.finetune, seed=0)
    head = _start_head(config, config.finetune, seed=0)
    x = torch.from_numpy(drawn(2)[:, None]).float() / 255
    with torch.no_grad():
        coded = codec.eval().estimate(x, 0)
        assert head is not None
        assert head(coded.y_hat).shape == network(coded.x_hat).shape == (2, 8)
    assert torch.isfinite(coded.bits).all()
    for stage in ("pretrain", "classifier", "latents"):
        assert (NETWORKS / f"{stage}.json").is_file(), "a study takes it for done"


def test_a_stage_whose_start_is_missing_says_which(
    study: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(study / "data"), "--photos", str(photos), "--out", str(tmp_path)]
    assert main(["joint", "--preset", "smoke", *arguments]) == 2
    assert "finetune.pt is not there" in capsys.readouterr().err


def test_the_papers_preset_takes_its_first_steps(photos: Path, tmp_path: Path) -> None:
    names = [f"train_{index:05d}" for index in range(30)]
    write_rafdb(tmp_path / "basic", drawn(30, side=100), names, [1, 2, 3, 4, 5, 6] * 5)
    arguments = ["--data", str(tmp_path), "--photos", str(photos), "--out", str(tmp_path / "run")]
    arguments += ["--threads", "1", "--max_faces", "2", "--seeds", "[0]"]
    # One rate and CompressAI's own widths, as for a model a rate.
    arguments += [
        "--codec.zoo_quality",
        "3",
        "--pretrain.crops",
        "2",
        "--pretrain.valid_crops",
        "2",
    ]
    for stage in ("pretrain", "classifier", "finetune", "joint"):
        arguments += [f"--{stage}.batch_faces", "2", f"--{stage}.epochs", "1"]
        if stage != "classifier":
            arguments += [f"--{stage}.lmbdas", "[0.0067]"]
    for stage in ("finetune", "joint"):
        arguments += [f"--{stage}.start_gains", "[1.0]"]
    for stage in ("pretrain", "classifier", "finetune", "joint"):
        assert main([stage, "--preset", "paper", *arguments]) == 0
    figures = json.loads((tmp_path / "run" / "seed-0" / "joint.json").read_text())
    assert figures["bytes_0"] > 0
    assert 0 <= figures["accuracy_uncompressed"] <= 1


@pytest.mark.parametrize("preset", ["two-cores", "paper"])
def test_the_edge_classifier_costs_what_the_encoder_costs(preset: str, tmp_path: Path) -> None:
    folders = ["--data", str(tmp_path), "--photos", str(tmp_path), "--out", str(tmp_path)]
    parser = _parser()
    arguments = _with_preset(["edge", "--preset", preset, *folders])
    config = parser.instantiate(parser.parse_args(arguments)).edge
    edge = ResNet18(config.face.channels, config.face.size, config.edge_width, 8, 0.0)
    codec = VariableRateHyperprior(
        config.codec.width, config.codec.latent_channels, config.face.channels, config.codec.rates
    )
    share = classifier_macs(edge, config.face) / encoder_macs(codec, config.face)
    assert 0.9 < share < 1.1


def test_a_classifier_that_starts_trained_learns_at_a_share_of_the_rate() -> None:
    stage = tune(TuneConfig(**TWO, classifier_share=0.25), train_classifier=True)
    groups = optimizer_of(stage).param_groups
    scales = {id(p): group["scale"] for group in groups for p in group["params"]}
    assert {scales[id(p)] for p in stage.classifier.parameters()} == {0.25}
    assert {scales[id(p)] for p in stage.codec.parameters()} == {1.0}
    assert len(scales) == sum(1 for _ in stage.model.parameters())


def test_joint_training_keeps_the_batch_norm_statistics_of_uncompressed_faces() -> None:
    stage = tune(TuneConfig(**TWO), train_classifier=True)
    stage.model.train()
    before = {name: value.clone() for name, value in stage.classifier.named_buffers()}
    one_step(stage)
    after = dict(stage.classifier.named_buffers())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
