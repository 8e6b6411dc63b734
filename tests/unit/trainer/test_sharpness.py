"""Steps that look around: where weights go, that they come back, and what a run makes of them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.trainer.shared_training import Run, faces, stage
from trainer.loop import Loop
from trainer.sharpness import LEAST_SIZE, ascended, norms_held


def test_weights_go_where_the_loss_is_worst_within_the_radius_and_come_back() -> None:
    layer = nn.Linear(3, 2)
    weights = [layer.weight, layer.bias, nn.Parameter(torch.ones(2, 2))]
    before = [weight.detach().clone() for weight in weights]
    gradients = [torch.tensor([[1.0, 0, -2], [0, 3, 0]]), torch.tensor([0.0, 4.0]), None]
    with ascended(weights, gradients, 0.5):
        sizes = (before[0].abs() + LEAST_SIZE, torch.ones(2))
        moved = [(w - b).detach() for w, b in zip(weights, before, strict=True)]
        far = sum(float((m / s).square().sum()) for m, s in zip(moved, sizes, strict=False))
        assert far == pytest.approx(0.25, rel=1e-4)
        rises = sum(
            float((m * g).sum()) for m, g in zip(moved, gradients, strict=True) if g is not None
        )
        # No other move of that size gains more: by Cauchy and Schwarz, radius · |size · gradient|.
        steepest = sum(
            float((s * g).square().sum())
            for s, g in zip(sizes, gradients, strict=False)
            if g is not None
        )
        assert rises == pytest.approx(0.5 * steepest**0.5, rel=1e-4)
        assert torch.equal(weights[2], before[2])
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))


def test_norms_learn_nothing_of_what_passes_while_they_are_held() -> None:
    norm = nn.BatchNorm2d(3)
    with norms_held(norm):
        norm(torch.rand(8, 3, 4, 4))
    assert torch.equal(norm.running_mean, torch.zeros(3))  # type: ignore[arg-type]
    norm(torch.rand(8, 3, 4, 4))
    assert not torch.equal(norm.running_mean, torch.zeros(3))  # type: ignore[arg-type]


def trained(out: Path, sharpness: float, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    out.mkdir(exist_ok=True)
    taught = stage("classifier")
    taught.config = dataclasses.replace(taught.config, sharpness=sharpness)  # type: ignore[misc]
    loop = Loop(taught, Run(out), faces(48, 0), faces(16, 100))
    if stop_after is not None:
        loop.steps = stop_after
    loop.fit()
    return loop.stage.model.state_dict()


def test_a_run_with_sharpness_is_another_and_goes_on_as_it_would_have(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", 0.0)
    sharp = trained(tmp_path / "sharp", 0.5)
    trained(tmp_path / "killed", 0.5, stop_after=4)
    resumed = trained(tmp_path / "killed", 0.5)
    weights = [name for name in sharp if name.endswith("conv1.weight")]
    assert weights
    for name in weights:
        assert not torch.allclose(plain[name], sharp[name], atol=1e-4)
        assert torch.equal(sharp[name], resumed[name])
