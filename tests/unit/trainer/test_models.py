import math

import pytest
import torch

from trainer.config import JointConfig, ModelConfig
from trainer.models.networks import Analysis, LatentClassifier, PixelClassifier, Synthesis
from trainer.models.prior import PositionalPrior
from trainer.quantise import straight_through
from trainer.stages import JointStage
from trainer.targets import Multiplier

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


def test_a_weight_rises_while_its_target_is_missed_and_falls_after() -> None:
    weights = Multiplier([0.01, 0.02], gain=0.1, settling_share=0.2)
    missed = torch.tensor([1.0, -1.0])
    weights.move(missed, progress=0.1)
    assert weights.weight.tolist() == pytest.approx([0.01, 0.02])
    weights.move(missed, progress=0.5)
    assert weights.weight.tolist() == pytest.approx([0.01 * math.exp(0.1), 0.02 / math.exp(0.1)])


def test_a_proportional_weight_answers_at_once_and_is_ascents_own_at_the_target() -> None:
    weights = Multiplier([0.01], gain=0.1, settling_share=0.0, proportion=2.0)
    weights.move(torch.tensor([0.5]), progress=0.5)
    assert float(weights.weight) == pytest.approx(0.01 * math.exp(0.05 + 1.0))
    weights.move(torch.tensor([0.0]), progress=0.5)
    assert float(weights.weight) == pytest.approx(0.01 * math.exp(0.05))


def test_figures_are_averaged_from_the_first_on() -> None:
    weights = Multiplier([1.0], gain=0.1, settling_share=0.0)
    assert float(weights.average(torch.tensor([3.0]))) == 3
    assert 3 < float(weights.average(torch.tensor([9.0]))) < 4


def test_without_targets_the_joint_stages_weights_stay() -> None:
    config = JointConfig()
    stage = JointStage(config, ModelConfig(), PixelClassifier((32, 64, 128, 256), 8, 0.0))
    shown = stage.stepped({"bytes": 40.0, "mse": 0.1}, progress=0.9)
    assert shown["lmbda"] == pytest.approx(config.lmbda)
    assert shown["beta"] == pytest.approx(config.beta)


def test_bytes_over_target_make_the_rate_weigh_more() -> None:
    config = JointConfig(target_bytes=20, target_psnr_db=20)
    stage = JointStage(config, ModelConfig(), PixelClassifier((32, 64, 128, 256), 8, 0.0))
    shown = stage.stepped({"bytes": 40.0, "mse": 0.1}, progress=0.9)
    assert shown["lmbda"] > config.lmbda
    assert shown["beta"] > config.beta
