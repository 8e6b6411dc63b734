"""Pictures that agree with the base layer that was sent with them."""

import pytest
import torch
from torch import Tensor, nn

from trainer.models import consistency
from trainer.models.base import Analysis
from trainer.models.consistency import Consistency, FoldedAnalysis, FoldedConv

CHANNELS = 4


@pytest.fixture
def analysis() -> Analysis:
    """As after training: its norms have statistics, weights and biases of their own."""
    torch.manual_seed(0)
    made = Analysis((8, 8, 12, 12), CHANNELS)
    made.train()(torch.rand(64, 1, 48, 48))
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
    return made.eval()


@pytest.fixture
def faces() -> Tensor:
    torch.manual_seed(1)
    return torch.nn.functional.interpolate(torch.rand(32, 1, 8, 8), size=48, mode="bilinear")


def outside(analysis: Analysis, faces: Tensor, y_hat: Tensor, half: Tensor) -> Tensor:
    """How far each face lies from what is near enough to the middle of its cell, squared, (N,)."""
    beyond = ((analysis(faces) - y_hat).abs() - half * consistency.NEAR).relu()
    return beyond.square().sum(dim=(1, 2, 3))


def test_the_gradient_that_is_written_out_is_the_gradient(
    analysis: Analysis, faces: Tensor
) -> None:
    read, slope = faces.clone().requires_grad_(), torch.randn(len(faces), CHANNELS, 3, 3)
    y = analysis(read)
    (expected,) = torch.autograd.grad((y * slope).sum(), read)
    folded = FoldedAnalysis(analysis)
    with torch.no_grad():
        found, made = folded(faces)
        assert torch.allclose(found, y, atol=1e-4)
        assert expected.abs().max() > 0.1
        assert torch.allclose(folded.back(slope, made), expected, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("step", "left"), [(0.06, 0.5), (1e4, 1.0)], ids=["right", "far too long"])
def test_a_picture_comes_nearer_to_its_cell_and_never_goes_further_away(
    analysis: Analysis, faces: Tensor, step: float, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency, "STEP", step)
    half = torch.full((len(faces), CHANNELS, 1, 1), 0.2)
    y_hat = torch.round(analysis(faces) / (2 * half)) * 2 * half
    errors = 0.05 * torch.randn(400, 48 * 48)
    drawn = faces + errors[: len(faces)].view_as(faces)
    consistent = Consistency(analysis, errors)
    before = outside(analysis, drawn, y_hat, half)
    after = outside(analysis, consistent(drawn, y_hat, half), y_hat, half)
    assert (after <= before + 1e-4).all()
    assert after.mean() <= left * before.mean()
    middle = analysis(faces)
    assert torch.equal(consistent(faces, middle, half), faces)  # there already


def test_a_norm_that_has_seen_nothing_is_refused() -> None:
    conv, norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)
    with pytest.raises(ValueError, match="statistics"):
        FoldedConv(conv, norm)
