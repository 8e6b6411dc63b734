"""What is stored of networks: half the bytes, nearly the same numbers."""

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
    return nn.Sequential(nn.Linear(900, 300), nn.ReLU(), nn.Linear(300, 40)).eval()


@pytest.fixture(scope="module")
def file(network: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    write_onnx(network, {"x": torch.rand(2, 900)}, "y", path)
    return path


def test_a_weight_takes_two_bytes(file: Path) -> None:
    assert file.stat().st_size < 2 * (900 * 300 + 300 * 40) + 10_000


def test_weights_come_back_by_their_names(file: Path, network: nn.Sequential) -> None:
    stored = weights_of(onnx.load(file))
    for name, weight in network.state_dict().items():
        assert torch.allclose(stored[name], weight, rtol=1e-3, atol=1e-6)


def test_a_session_says_what_the_network_says(file: Path, network: nn.Sequential) -> None:
    x = torch.rand(50, 900)
    with torch.no_grad():
        wanted = network(x).numpy()
    said = Network(file)(x.numpy())
    assert np.abs(said - wanted).max() < 0.01 * wanted.std()
