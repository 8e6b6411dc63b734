"""Levels come to cost what they may: finer steps, or coarser ones where answers miss them least."""

from dataclasses import replace

import pytest
import torch

from trainer.config import ModelConfig
from trainer.models.base import BaseModel
from trainer.placing import MOST_FINER, Placing

SMALL = ModelConfig(4, (8, 8, 8, 8), 4, 16, 32, (8, 8, 8))


@pytest.fixture
def placing() -> Placing:
    torch.manual_seed(0)
    votes = torch.eye(8)[torch.arange(200) % 8]
    return Placing(BaseModel(SMALL, 3, 32).eval(), torch.randn(200, 4, 3, 3), votes)


def mean_bytes(placing: Placing) -> list[float]:
    with torch.no_grad():
        levels = [torch.full((200,), level) for level in range(3)]
        return [float(placing.base.coded(placing.y, level)[1].mean() / 8) for level in levels]


def test_a_level_that_costs_less_than_it_may_gets_finer_steps(placing: Placing) -> None:
    before = mean_bytes(placing)
    wanted = [before[0] + 2, before[1], before[2] + 4]
    added = torch.tensor(placing.added(wanted))
    assert (added[0] > 0).all()
    assert (added[1] == 0).all()
    placing.base.log_gains.data += added
    after = mean_bytes(placing)
    assert after == pytest.approx(wanted, rel=0.02)


def test_a_level_that_costs_more_gets_coarser_steps_where_nobody_looks(placing: Placing) -> None:
    with torch.no_grad():  # the classifier looks at the last channel alone
        placing.base.classifier.first.weight[:, : 3 * 9] = 0
        level = torch.zeros(200, dtype=torch.long)
        said = placing.base.classifier(placing.base.coded(placing.y, level)[0], level)
    placing = replace(placing, votes=torch.softmax(said, dim=1))  # any change misses them
    before = mean_bytes(placing)
    wanted = [before[0] * 0.9, before[1], before[2]]
    added = torch.tensor(placing.added(wanted))
    assert (added[0, :3] < 0).any()
    assert added[0, 3] == 0
    assert (added[1:] == 0).all()
    placing.base.log_gains.data += added
    assert mean_bytes(placing)[0] <= wanted[0]


def test_what_cannot_be_spent_ends_at_a_bound(placing: Placing) -> None:
    assert torch.allclose(
        torch.tensor(placing.added([1e6] * 3)), torch.tensor(MOST_FINER), atol=1e-3
    )
