"""The hyperprior codec: files, rates, sizes."""

import numpy as np
import pytest
import torch

from tests.unit.trainer.datasets import drawn
from trainer.models.hyperprior import (
    VariableRateHyperprior,
    decoded_at_random,
    zoo_sizes,
)


def faces(count: int = 6, side: int = 48) -> torch.Tensor:
    return torch.from_numpy(drawn(count, side=side)[:, None]).float() / 255


@pytest.fixture(scope="module")
def codec() -> VariableRateHyperprior:
    torch.manual_seed(0)
    codec = VariableRateHyperprior(8, 12, 1, rates=4).eval()
    codec.freeze_tables()
    return codec


@pytest.mark.parametrize("side", [48, 64, 80])
@pytest.mark.parametrize("rate", [0, 3])
def test_files_decode_to_what_was_estimated_without_padding(
    codec: VariableRateHyperprior, side: int, rate: int
) -> None:
    x = faces(3, side)
    files = codec.compress(x, rate)
    decoded = codec.decompress(files, side, side)
    assert decoded.shape == x.shape
    assert torch.equal(decoded, codec.estimate(x, rate).x_hat.clamp(0, 1))


def test_a_file_is_never_smaller_than_its_information(codec: VariableRateHyperprior) -> None:
    x = faces()
    # Not the highest: an untrained network's latents lie beyond the tables there, and an escape
    # costs less than what the likelihood's bound says.
    for rate in range(codec.rates - 1):
        bits = codec.estimate(x, rate).bits
        for file, ideal in zip(codec.compress(x, rate), bits.tolist(), strict=True):
            assert len(file) >= ideal / 8 - 0.5
            # Two rANS strings of at least 8 bytes, and two bytes of header.
            assert 18 <= len(file) <= ideal / 8 + 24


def test_a_higher_rate_costs_more(codec: VariableRateHyperprior) -> None:
    sizes = [sum(map(len, codec.compress(faces(), rate))) for rate in range(codec.rates)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.5 * sizes[0]


def test_every_truncated_file_is_refused_or_decodes_to_a_face(
    codec: VariableRateHyperprior,
) -> None:
    file = codec.compress(faces(1), 1)[0]
    for length in range(2 + file[1]):
        with pytest.raises(ValueError, match=r"few|cut off"):
            codec.decompress([file[:length]], 48, 48)


def test_files_of_different_or_unknown_rates_are_refused(codec: VariableRateHyperprior) -> None:
    low, high = codec.compress(faces(1), 0)[0], codec.compress(faces(1), 3)[0]
    with pytest.raises(ValueError, match="one rate"):
        codec.decompress([low, high], 48, 48)
    with pytest.raises(ValueError, match="knows"):
        codec.decompress([b"\x09" + low[1:]], 48, 48)


def test_rounded_bits_leave_out_what_noise_adds(codec: VariableRateHyperprior) -> None:
    x = faces()
    generator = torch.Generator().manual_seed(0)
    rates = torch.zeros(len(x), dtype=torch.int64)
    coded = codec(x, rates, *codec.noise(x, generator))
    assert torch.allclose(coded.rounded_bits, codec.estimate(x, 0).bits, rtol=1e-3)
    assert (coded.bits > coded.rounded_bits).all()
    assert coded.bits.requires_grad
    assert not coded.rounded_bits.requires_grad


def test_scaled_gains_cancel_out_but_for_rounding() -> None:
    torch.manual_seed(0)
    codec = VariableRateHyperprior(8, 12, 1, rates=2).eval()
    before = codec.estimate(faces(), 1).bits.mean()
    codec.scale_gains((1.0, 50.0))
    assert codec.estimate(faces(), 1).bits.mean() > before
    product = (codec.gain + codec.inverse_gain).detach().abs().max()
    assert float(product) < 1e-6


def test_the_zoo_has_two_sizes() -> None:
    assert zoo_sizes(4) == (128, 192)
    assert zoo_sizes(5) == (192, 320)
    with pytest.raises(ValueError, match="1 to 8"):
        zoo_sizes(9)


def test_decoding_at_random_is_the_same_each_time_and_changes_faces(
    codec: VariableRateHyperprior,
) -> None:
    pixels = drawn(8)[:, None]
    decoded = decoded_at_random(codec, pixels, seed=3)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, decoded_at_random(codec, pixels, seed=3))
    assert not np.array_equal(decoded, pixels)
