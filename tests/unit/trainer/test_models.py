import math
from dataclasses import replace

import pytest
import torch

from trainer.base_stage import BaseStage
from trainer.config import BaseConfig, ModelConfig
from trainer.data.faces import EXPRESSIONS
from trainer.data.images import FaceFormat
from trainer.models.base import Analysis, BaseModel
from trainer.models.enhancement import EnhancementModel, principal_components
from trainer.models.prior import PositionalPrior
from trainer.models.resnet import ResNet18
from trainer.quantise import straight_through
from trainer.study.cost import classifier_macs
from trainer.targets import Multiplier

SMALL = ModelConfig(4, (8, 8, 8, 8), 4, 16, 32, (8, 8, 8))
# Multiply-accumulates a pixel: what every face costs an edge, and what layers cost besides.
BASE_MACS, ENHANCEMENT_MACS = 6_000, 1_400


def prior() -> PositionalPrior:
    torch.manual_seed(0)
    model = PositionalPrior((2, 3, 3))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_shapes_of_the_way_of_a_face() -> None:
    face, level = torch.rand(3, 1, 48, 48), torch.tensor([0, 1, 0])
    base, enhancement = BaseModel(SMALL, 2, 32), EnhancementModel(SMALL)
    y = base.analysis(face)
    assert y.shape == (3, 4, 3, 3)
    y_hat, bits, symbols = base.coded(y, level)
    assert (bits.shape, symbols.shape) == ((3,), y.shape)
    assert torch.equal(symbols, torch.round(symbols))
    logits, features = base.classifier.taught(y_hat, level)
    assert (logits.shape, features.shape) == ((3, len(EXPRESSIONS)), (3, 32))
    e = enhancement.analysis(face, y_hat)
    assert e.shape == (3, 32, 1, 1)
    assert enhancement.synthesis(y_hat, e).shape == face.shape


def test_the_edges_networks_keep_within_their_budget() -> None:
    config, face = ModelConfig(), FaceFormat(48, 1)
    base = classifier_macs(Analysis(config.analysis_widths, config.latent_channels), face)
    model = EnhancementModel(config)
    model.forward = lambda x: model.analysis(x, torch.zeros(1, config.latent_channels, 3, 3))
    assert base <= BASE_MACS * 48 * 48
    assert classifier_macs(model, face) <= ENHANCEMENT_MACS * 48 * 48


def test_the_strongest_components_are_where_faces_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(12, 3, generator=generator)).Q.T
    strengths = torch.randn(400, 3, generator=generator) * torch.tensor([5.0, 2.0, 1.0])
    mean, found = principal_components(0.5 + strengths @ directions, 2)
    assert mean == pytest.approx(0.5, abs=0.5)
    assert (found @ directions[:2].T).abs() == pytest.approx(torch.eye(2), abs=0.1)


def test_an_enhancement_draws_from_its_start_and_better_with_all_layers() -> None:
    torch.manual_seed(0)
    # Few things to differ in, so that few components hold them.
    faces = torch.nn.functional.interpolate(torch.rand(64, 1, 4, 4), size=48, mode="bilinear")
    base, model = BaseModel(SMALL, 2, 32).eval(), EnhancementModel(SMALL)
    model.begin(faces)
    with torch.no_grad():
        y_hat, _, _ = base.coded(base.analysis(faces), torch.zeros(64, dtype=torch.long))
        e = torch.round(model.analysis(faces, y_hat))
        assert model.prior.bits(e).isfinite().all()
        errors = [
            float(
                (
                    model.synthesis(y_hat, torch.cat([e[:, :shown], 0 * e[:, shown:]], 1)) - faces
                ).std()
            )
            for shown in (0, 8, 32)
        ]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_the_gain_of_a_face_is_a_whole_number_that_the_synthesis_undoes() -> None:
    torch.manual_seed(0)
    faces, y_hat = torch.rand(8, 1, 48, 48), torch.zeros(8, 4, 3, 3)
    model = EnhancementModel(SMALL)
    model.begin(faces)
    with torch.no_grad():
        plain = model.analysis(faces, y_hat)
        model.analysis.gain[-1].bias.fill_(3.2)
        finer = model.analysis(faces, y_hat)
        assert (finer[:, 0] == 3).all()
        assert (finer[:, 1:].abs().sum() > 1.3 * plain[:, 1:].abs().sum()).item()
        drawn = [model.synthesis(y_hat, torch.round(e)) for e in (plain, finer)]
    assert float((drawn[1] - faces).square().mean()) < float((drawn[0] - faces).square().mean())


def test_probabilities_of_all_integers_sum_to_one() -> None:
    integers = torch.arange(-400.0, 401).view(-1, 1, 1, 1).expand(-1, 2, 3, 3)
    total = torch.exp2(-prior().bits(integers)).sum(dim=0)
    assert torch.allclose(total, torch.ones(2, 3, 3), atol=2e-3)


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


def test_a_weight_whose_target_cannot_be_met_has_a_bound() -> None:
    weights = Multiplier([0.01], gain=0.1, settling_share=0.0, most=0.02)
    for _ in range(100):
        weights.move(torch.tensor([1.0]), progress=0.5)
    assert float(weights.weight) == pytest.approx(0.02)


def test_figures_are_averaged_from_the_first_on() -> None:
    weights = Multiplier([1.0], gain=0.1, settling_share=0.0)
    assert float(weights.average(torch.tensor([3.0]))) == 3
    assert 3 < float(weights.average(torch.tensor([9.0]))) < 4


def test_the_teacher_answers_for_the_faces_that_the_student_sees() -> None:
    class Attentive(ResNet18):
        def features(self, faces: torch.Tensor) -> list[torch.Tensor]:
            self.asked = faces
            return super().features(faces)

    torch.manual_seed(0)
    teacher = Attentive(1, 48, 4, len(EXPRESSIONS), 0.0)
    config = BaseConfig(level_bytes=(4, 20), teacher_share=1.0, mixup_share=1.0)
    stage = BaseStage(config, BaseModel(replace(SMALL, dropout=0.0), 2, 32), teacher)
    faces, votes = torch.rand(6, 1, 48, 48), torch.eye(len(EXPRESSIONS))[:6]
    batch = stage.prepare(faces, votes, 0.5, torch.Generator().manual_seed(0))
    assert not torch.equal(batch[0], faces)
    losses = [stage.loss((batch[0], of, *batch[2:]), 0.5)[0] for of in (votes, votes.flip(0))]
    assert torch.equal(teacher.asked, batch[0])
    assert torch.equal(*losses), "the votes have no share in this target"


def test_what_is_nearly_rounded_up_costs_bits_before_it_is() -> None:
    class Fixed(torch.nn.Module):
        value = 0.0

        def forward(self, faces: torch.Tensor) -> torch.Tensor:
            return torch.full((len(faces), 4, 3, 3), self.value)

    torch.manual_seed(0)
    base = BaseModel(replace(SMALL, dropout=0.0), 2, 32)
    with torch.no_grad():
        base.log_gains.zero_()
        base.prior.means.zero_()
        base.prior.log_scales.fill_(-3.0)
    stage = BaseStage(BaseConfig(level_bytes=(4, 20)), base, ResNet18(1, 48, 4, 8, 0.0))
    base.analysis = Fixed()
    faces, votes = torch.rand(6, 1, 48, 48), torch.eye(len(EXPRESSIONS))[:6]
    batch = stage.prepare(faces, votes, 0.9, torch.Generator().manual_seed(0))
    silent, shown = stage.loss(batch, 0.9)
    base.analysis.value = 0.45
    nearly, shown_too = stage.loss(batch, 0.9)
    for figure in ("cross_entropy", "bytes_0"):
        assert shown[figure] == shown_too[figure], "it is rounded to nothing as well"
    assert nearly > silent + 0.1


def test_bytes_over_a_levels_target_make_its_rate_weigh_more() -> None:
    config = BaseConfig(level_bytes=(4, 20), lmbda=(4e-3, 1e-3))
    stage = BaseStage(config, BaseModel(SMALL, 2, 32), ResNet18(1, 48, 4, 8, 0.0))
    before = stage.lmbda.weight.tolist()
    assert before == pytest.approx([4e-3, 1e-3])
    stage.stepped({"bytes_0": 8.0, "bytes_1": 10.0}, progress=0.05)
    assert stage.lmbda.weight.tolist() == pytest.approx(before), "rates rise first"
    stage.stepped({"bytes_0": 8.0, "bytes_1": 10.0}, progress=0.9)
    low, high = stage.lmbda.weight.tolist()
    assert low > before[0]
    assert high < before[1]
