"""Two processes of torchrun train what one does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mien.layers import LayersCodec
from tests.unit.trainer.datasets import write_fer
from tests.unit.trainer.shared_training import STEPS, faces, stage, train
from trainer.base_stage import BaseStage
from trainer.config import BaseConfig, EnhancementConfig, ModelConfig, SynthesisConfig
from trainer.enhancement_stage import EnhancementStage
from trainer.examples import EVALUATION_FACES, Examples, in_parts
from trainer.layer_tables import tables_for
from trainer.loop import StageLoss
from trainer.models.base import BaseModel
from trainer.models.enhancement import EnhancementModel
from trainer.models.hyperprior import VariableRateHyperprior
from trainer.models.resnet import ResNet18
from trainer.processes import Processes
from trainer.stages import Stage
from trainer.study.config import TuneConfig
from trainer.study.tune import TuneStage
from trainer.synthesis_stage import SynthesisStage

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
Lines = list[dict[str, Any]]


def torchrun(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, f"--nproc_per_node={processes}", "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def log(out: Path, event: str) -> Lines:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in log(out, "step")]


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What train changes in the loop's module comes back after the test."""
    monkeypatch.setattr("trainer.loop.LOG_STEPS", 50)
    monkeypatch.setattr("trainer.loop.has_bf16", lambda: False)


@pytest.mark.usefixtures("one_thread", "unpatched")
def test_two_processes_train_the_codec_as_one_does_even_when_killed_halfway(
    tmp_path: Path,
) -> None:
    """Losses agree to 1e-5 of their size at every step.

    The codec treats each face by itself and its noise is drawn for the whole batch, so what is
    left is the order in which float32 is summed.
    """
    alone, together = tmp_path / "alone", tmp_path / "together"
    for out in (alone, together):
        out.mkdir()
    train("codec", alone)
    killed = torchrun("tests.unit.trainer.shared_training", "codec", together, 5)
    assert killed.returncode != 0
    assert [line["step"] for line in log(together, "step")] == [1, 2, 3, 4, 5]
    resumed = torchrun("tests.unit.trainer.shared_training", "codec", together)
    assert resumed.returncode == 0, resumed.stderr
    # Steps since the last checkpoint are taken twice, and alike.
    steps = [*range(1, 6), *range(5, STEPS + 1)]
    assert [line["step"] for line in log(together, "step")] == steps
    shared, whole = losses(together), losses(alone)
    assert shared[4] == shared[5]
    assert shared[5:] == pytest.approx(whole[4:], rel=1e-5)
    assert shared[:5] == pytest.approx(whole[:5], rel=1e-5)
    for mine, theirs in zip(log(alone, "epoch"), log(together, "epoch"), strict=True):
        assert mine["bytes_0"] == pytest.approx(theirs["bytes_0"], rel=1e-3)
    told = [(together / f"figures-{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1], "both processes know the figures of the end"


@pytest.mark.usefixtures("one_thread", "unpatched")
@pytest.mark.parametrize("name", ["classifier", "latents"])
def test_two_processes_train_what_has_batch_norm_much_as_one_does(
    name: str, tmp_path: Path
) -> None:
    """Every loss agrees to 10%, the first and the mean over all steps to 1%.

    Batch norm makes a face's logits depend on the other faces of its share: means and variances
    of 8 faces are not those of 16.
    """
    alone, together = tmp_path / "alone", tmp_path / "together"
    for out in (alone, together):
        out.mkdir()
    train(name, alone)
    run = torchrun("tests.unit.trainer.shared_training", name, together)
    assert run.returncode == 0, run.stderr
    whole, shared = losses(alone), losses(together)
    assert shared == pytest.approx(whole, rel=0.1)
    assert shared[0] == pytest.approx(whole[0], rel=0.01)
    assert np.mean(shared) == pytest.approx(np.mean(whole), rel=0.01)
    assert shared[0] != whole[0], "a share is not the batch"


def test_fit_under_torchrun_writes_once_what_one_process_would(tmp_path: Path) -> None:
    sizes = ["teacher_width=4", "analysis_widths=[8,8,8,8]", "latent_channels=4"]
    sizes += ["latent_classifier_width=8", "enhancement_channels=32"]
    sizes += ["synthesis_widths=[8,8,8]"]
    options = [f"--model.{size}" for size in sizes]
    stages = ["classifier", "base", "enhancement", "synthesis"]
    for part in stages:
        options += [f"--{part}.epochs=1", f"--{part}.batch_faces=16"]
    data, out = write_fer(tmp_path / "fer", 48, 16), tmp_path / "run"
    options += ["--enhancement.layer_channels=[8,24]", "--data", str(data), "--out", str(out)]
    run = torchrun("trainer", "fit", *options)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("48 faces to train on") == 1
    figures = json.loads((out / "figures.json").read_text())
    assert list(figures) == stages
    assert [line["stage"] for line in log(out, "epoch")] == stages
    assert torch.load(out / "base.pt", weights_only=True)["step"] == 3


def test_processes_that_cannot_share_a_batch_evenly_are_told_so() -> None:
    assert [Processes(rank, 4, CPU).share(8) for rank in range(4)] == [
        slice(0, 2),
        slice(2, 4),
        slice(4, 6),
        slice(6, 8),
    ]
    with pytest.raises(ValueError, match="16 faces does not divide among 3 processes"):
        Processes(0, 3, CPU).share(16)


def tuning(train_classifier: bool, **settings: float) -> TuneStage:
    torch.manual_seed(1)
    codec, classifier = VariableRateHyperprior(8, 12, 1, 8), ResNet18(1, 48, 8, 8, 0.0)
    config = TuneConfig(**settings)  # type: ignore[arg-type]
    return TuneStage("tune", config, codec, classifier, train_classifier)


def test_figures_of_shares_average_to_those_of_the_batch() -> None:
    """Also where rates are spread unevenly over a share, as 8 rates over 10 faces."""
    tune = tuning(train_classifier=False, features=0.0)
    some = faces(20, 0)
    pixels = torch.from_numpy(some.pixels[:]).float() / 255
    generator = torch.Generator().manual_seed(0)
    batch = tune.prepare(pixels, torch.from_numpy(some.votes), 0.0, generator)
    loss = StageLoss(tune)

    def of(chosen: slice | torch.Tensor) -> tuple[float, dict[str, float]]:
        with torch.no_grad():
            mean, figures = loss(tuple(part[chosen] for part in batch), 0.0)
        return float(mean), {name: float(figure) for name, figure in figures.items()}

    (whole, figures), *parts = of(slice(20)), of(slice(10)), of(slice(10, 20))
    assert np.mean([part for part, _ in parts]) == pytest.approx(whole, rel=1e-5)
    for name in set(figures) - {"features"}:
        mean = np.mean([shown[name] for _, shown in parts])
        assert mean == pytest.approx(figures[name], rel=1e-5), name
    # Three faces have rate 1: their mean is the batch's figure, at the weight that they have.
    _, third = of(torch.tensor([1, 9, 17]))
    assert third["bytes_1"] / (20 / 3) == pytest.approx(figures["bytes_1"], rel=1e-5)


def placed(loss: StageLoss, mode: FakeTensorMode, device: torch.device) -> StageLoss:
    for module in loss.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = mode.from_tensor(parameter.detach()).to(device)
                module._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer).to(device)
    return loss


@pytest.mark.parametrize("made", [lambda: stage("codec"), lambda: tuning(train_classifier=False)])
def test_a_loss_and_an_estimate_stay_on_the_gpu(made: Callable[[], Stage]) -> None:
    """With tensors that have a device and a shape and no content, so that no GPU is needed."""
    gpu, mode, some = torch.device("cuda", 0), FakeTensorMode(allow_non_fake_inputs=True), made()
    votes = torch.from_numpy(faces(4, 0).votes)
    whole = some.prepare(torch.rand(4, 1, 48, 48), votes, 0.0, torch.Generator())
    with mode:
        batch = tuple(mode.from_tensor(part).to(gpu) for part in whole)
        loss, figures = placed(StageLoss(some), mode, gpu)(batch, 0.0)
        assert {loss.device, *(figure.device for figure in figures.values())} == {gpu}
        codec = some.codec  # type: ignore[attr-defined]  # both have one
        assert codec.estimate(batch[0], 1).bits.device == gpu


SIZES = ModelConfig(4, (8, 8, 8, 8), 4, 16, 32, (8, 8, 8))


def fit_stage(name: str) -> BaseStage | EnhancementStage | SynthesisStage:
    torch.manual_seed(1)
    base, teacher = BaseModel(SIZES, 8, 32), ResNet18(1, 48, 4, 8, 0.0)
    if name == "base":
        return BaseStage(BaseConfig(), base, teacher)
    model, channels = EnhancementModel(SIZES), (8, 24)
    if name == "enhancement":
        config = EnhancementConfig(layer_channels=channels)
        return EnhancementStage(config, model, base, teacher)
    e = np.random.default_rng(0).normal(size=(64, 32, 1, 1)).astype(np.float32)
    layers = LayersCodec(tables_for(e, channels))
    return SynthesisStage(SynthesisConfig(), model, base, teacher, layers)


@pytest.mark.parametrize("name", ["base", "enhancement"])
def test_the_loss_of_a_codec_in_training_stays_on_the_gpu(name: str) -> None:
    gpu, mode = torch.device("cuda", 0), FakeTensorMode(allow_non_fake_inputs=True)
    some = fit_stage(name)
    votes = torch.from_numpy(faces(4, 0).votes)
    whole = some.prepare(torch.rand(4, 1, 48, 48), votes, 0.0, torch.Generator())
    with mode:
        batch = tuple(mode.from_tensor(part).to(gpu) for part in whole)
        for progress in (0.0, 0.9):  # with noise, and without
            loss, figures = placed(StageLoss(some), mode, gpu)(batch, progress)
            assert {loss.device, *(figure.device for figure in figures.values())} == {gpu}


@pytest.mark.parametrize("name", ["base", "enhancement", "synthesis"])
def test_a_codec_in_training_is_judged_on_the_gpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as tensors without content go: to where a figure becomes a number."""
    gpu, mode = torch.device("cuda", 0), FakeTensorMode(allow_non_fake_inputs=True)
    some = fit_stage(name)

    def coded(net: EnhancementModel, base: object, layers: object, x: torch.Tensor, level: object):
        assert x.device == gpu
        return torch.zeros(len(x), 4, 3, 3, device=gpu), torch.zeros(len(x), 32, 1, 1, device=gpu)

    monkeypatch.setattr("trainer.synthesis_stage.coded", coded)
    with mode:
        placed(StageLoss(some), mode, gpu)
        with pytest.raises(DataDependentOutputException):
            some.evaluate(some.model.eval(), faces(4, 0))


class Counted:
    """Faces that note how many of them are asked for at a time."""

    def __init__(self, examples: Examples) -> None:
        self.majority, self.votes, self._pixels = examples.majority, examples.votes, examples.pixels
        self.asked: list[int] = []

    @property
    def pixels(self) -> "Counted":
        return self

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        self.asked.append(len(chosen))
        return self._pixels[chosen]  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self._pixels)


def test_held_out_faces_are_read_a_part_at_a_time_and_once() -> None:
    count = EVALUATION_FACES + 44
    some = Counted(faces(count, 0))
    parts = list(in_parts(some, CPU))
    assert some.asked == [EVALUATION_FACES, 44]
    together = torch.cat([x for x, _ in parts])
    assert torch.equal((together * 255).round().byte(), torch.from_numpy(some._pixels))
    assert torch.cat([m for _, m in parts]).tolist() == some.majority.tolist()
    few = Counted(faces(4, 0))
    tuning(train_classifier=True).evaluate(tuning(train_classifier=True).model.eval(), few)
    assert few.asked == [4], "not once more for every rate"
