import math

import pytest
import torch

from trainer.config import JointConfig, ModelConfig
from trainer.models.networks import Analysis, LatentClassifier, PixelClassifier, Synthesis
from trainer.models.prior import PositionalPrior
from trainer.quantise import straight_through, with_noise
from trainer.targets import SETTLING_SHARE, Multipliers

SMALL = ModelConfig((8, 8, 8, 8), 4, (8, 8, 8, 8), 8)


def prior() -> PositionalPrior:
    torch.manual_seed(0)
    model = PositionalPrior((2, 3, 3))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_shapes_of_the_way_of_a_face() -> None:
    face = torch.rand(3, 1, 48, 48)
    y = Analysis(SMALL.analysis_widths, 4)(face)
    assert y.shape == (3, 4, 3, 3)
    assert Synthesis(4, SMALL.synthesis_widths)(y).shape == face.shape
    assert LatentClassifier(4, 8, 8, 0.0)(y).shape == (3, 8)
    assert PixelClassifier(SMALL.analysis_widths, 8, 0.0)(face).shape == (3, 8)


def test_probabilities_of_all_integers_sum_to_one() -> None:
    assert torch.allclose(prior().pmf(-400, 400).sum(dim=0), torch.ones(2, 3, 3), atol=2e-3)


def test_bits_agree_with_the_mass_of_an_interval() -> None:
    model = prior()
    y = torch.randn(5, 2, 3, 3)

    def cdf(at: torch.Tensor) -> torch.Tensor:
        scaled = (at.unsqueeze(1) - model.means) / torch.exp(model.log_scales)
        return (torch.sigmoid(scaled) * torch.softmax(model.weights, dim=0)).sum(dim=1)

    mass = cdf(y + 0.5) - cdf(y - 0.5)
    assert torch.allclose(model.bits(y), -torch.log2(mass), atol=1e-3)


def test_far_off_symbols_cost_bounded_bits_and_have_a_gradient() -> None:
    y = torch.full((1, 2, 3, 3), 1e4, requires_grad=True)
    bits = prior().bits(y)
    bits.sum().backward()
    assert bits.max() <= 20
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_straight_through_rounds_and_passes_the_gradient() -> None:
    y = torch.tensor([0.4, 1.6, -2.3], requires_grad=True)
    rounded = straight_through(y)
    rounded.sum().backward()
    assert rounded.tolist() == [0, 2, -2]
    assert y.grad is not None
    assert y.grad.tolist() == [1, 1, 1]
    assert (with_noise(y) - y).abs().max() <= 0.5


def test_weights_rise_while_a_target_is_missed_and_fall_after() -> None:
    weights = Multipliers(JointConfig(target_bytes=20, target_psnr_db=20))
    weights.update(40, 0.1, SETTLING_SHARE / 2)
    assert float(weights.lmbda) == pytest.approx(JointConfig().lmbda)
    for _ in range(20):
        weights.update(40, 0.1, 0.5)
    risen = float(weights.lmbda), float(weights.beta)
    assert risen[0] > JointConfig().lmbda
    assert risen[1] > JointConfig().beta
    for _ in range(400):
        weights.update(10, 1e-3, 0.5)
    assert float(weights.lmbda) < risen[0]
    assert float(weights.beta) < risen[1]


def test_without_targets_the_weights_stay() -> None:
    weights = Multipliers(JointConfig())
    weights.update(40, 0.1, 0.9)
    assert float(weights.lmbda) == pytest.approx(JointConfig().lmbda)
    assert math.isclose(float(weights.beta), JointConfig().beta)
