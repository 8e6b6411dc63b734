"""Quality levels that cost less than they may get finer gains, and no others."""

import pytest
import torch

from trainer.config import ModelConfig
from trainer.models.base import BaseModel
from trainer.placing import MOST_FINER, finer

SMALL = ModelConfig(4, (8, 8, 8, 8), 4, 16, 32, (8, 8, 8))


@pytest.fixture
def base() -> BaseModel:
    torch.manual_seed(0)
    return BaseModel(SMALL, 3, 32).eval()


@pytest.fixture
def y() -> torch.Tensor:
    return torch.randn(200, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def mean_bytes(base: BaseModel, y: torch.Tensor) -> list[float]:
    with torch.no_grad():
        levels = [torch.full((len(y),), level) for level in range(3)]
        return [float(base.coded(y, level)[1].mean() / 8) for level in levels]


def test_a_level_that_costs_less_than_it_may_is_made_finer_up_to_that(
    base: BaseModel, y: torch.Tensor
) -> None:
    before = mean_bytes(base, y)
    wanted = [before[0] + 2, before[1] / 2, before[2] + 4]
    added = finer(base, y, wanted)
    assert added[0] > 0
    assert added[1] == 0, "no level is made coarser: that is what it was trained for"
    base.log_gains.data += torch.tensor(added)[:, None]
    after = mean_bytes(base, y)
    assert after[0] == pytest.approx(wanted[0], rel=0.02)
    assert after[1] == before[1]
    assert after[2] == pytest.approx(wanted[2], rel=0.02)


def test_what_cannot_be_spent_ends_at_a_bound(base: BaseModel, y: torch.Tensor) -> None:
    assert finer(base, y, [1e6] * 3) == pytest.approx([MOST_FINER] * 3, abs=1e-3)
