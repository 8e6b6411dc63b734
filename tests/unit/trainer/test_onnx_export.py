"""What is stored of networks: fewer bytes, nearly the same numbers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from trainer.onnx_export import weights_of, write_onnx
from trainer.runtime import Network


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(900, 1200), nn.ReLU(), nn.Linear(1200, 40))
    with torch.no_grad():
        model[0].weight[7] = 0  # has no scale of its own
        model[0].weight[8] *= 1000
    return model.eval()


@pytest.fixture(scope="module")
def file(network: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    write_onnx(network, {"x": torch.rand(2, 900)}, "y", path, ("0.weight",))
    return path


def test_a_quartered_matrix_takes_a_byte_a_weight_and_others_two(file: Path) -> None:
    assert file.stat().st_size < 900 * 1200 + 2 * 1200 * 40 + 20_000


def test_weights_come_back_within_half_a_step_of_their_row(
    file: Path, network: nn.Sequential
) -> None:
    stored = weights_of(onnx.load(file))
    large, small = network[0].weight.detach(), network[2].weight.detach()
    step = large.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((stored["0.weight"] - large).abs() <= step * 0.501).all())
    assert torch.allclose(stored["2.weight"], small, rtol=1e-3, atol=1e-6)
    assert torch.allclose(stored["0.bias"], network[0].bias.detach(), rtol=1e-3, atol=1e-6)
    assert set(stored) >= {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert not any("int8" in name or "scales" in name for name in stored)


def test_a_session_says_what_the_network_says(file: Path, network: nn.Sequential) -> None:
    x = torch.rand(50, 900)
    with torch.no_grad():
        wanted = network(x).numpy()
    said = Network(file)(x.numpy())
    assert np.abs(said - wanted).max() < 0.05 * wanted.std()
