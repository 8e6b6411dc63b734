"""The hyperprior codec: files, rates, sizes."""

import numpy as np
import pytest
import torch
from compressai.layers import GDN

from tests.unit.trainer.datasets import drawn
from trainer.models.hyperprior import (
    VariableRateHyperprior,
    _header,
    _parse,
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
            # Two rANS strings of at least 8 bytes, and a byte of header.
            assert 17 <= len(file) <= ideal / 8 + 23


def test_a_higher_rate_costs_more(codec: VariableRateHyperprior) -> None:
    sizes = [sum(map(len, codec.compress(faces(), rate))) for rate in range(codec.rates)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.5 * sizes[0]


def test_every_file_that_ends_in_zs_string_is_refused(codec: VariableRateHyperprior) -> None:
    file = codec.compress(faces(1), 1)[0]
    words = file[0] // codec.rates
    assert words >= 2, "a string holds at least rANS's state"
    for length in range(1 + 4 * words):
        with pytest.raises(ValueError, match=r"few|cut off"):
            codec.decompress([file[:length]], 48, 48)


@pytest.mark.parametrize(("words", "header_bytes"), [(2, 1), (31, 1), (32, 2), (5000, 3)])
@pytest.mark.parametrize("rate", [0, 3])
def test_a_header_holds_the_rate_and_how_long_zs_string_is(
    words: int, header_bytes: int, rate: int
) -> None:
    side = bytes(range(4)) * words
    header = _header(rate, 4, side)
    assert len(header) == header_bytes
    assert _parse(header + side + b"rest", 4) == (rate, side, b"rest")


def test_a_header_without_an_end_is_refused(codec: VariableRateHyperprior) -> None:
    with pytest.raises(ValueError, match="not one"):
        codec.decompress([b"\xff" * 40], 48, 48)


def test_files_of_different_rates_are_refused(codec: VariableRateHyperprior) -> None:
    low, high = codec.compress(faces(1), 0)[0], codec.compress(faces(1), 3)[0]
    with pytest.raises(ValueError, match="one rate"):
        codec.decompress([low, high], 48, 48)


def test_rounded_bits_leave_out_what_noise_adds(codec: VariableRateHyperprior) -> None:
    x = faces()
    generator = torch.Generator().manual_seed(0)
    rates = torch.zeros(len(x), dtype=torch.int64)
    coded = codec(x, rates, *codec.noise(x, generator))
    assert torch.allclose(coded.rounded_bits, codec.estimate(x, 0).bits, rtol=1e-3)
    assert (coded.bits > coded.rounded_bits).all()
    assert coded.bits.requires_grad


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


def test_a_codec_with_relu_codes_as_it_estimates() -> None:
    torch.manual_seed(0)
    codec = VariableRateHyperprior(8, 12, 1, 2, "relu").eval()
    codec.freeze_tables()
    assert not any(isinstance(module, GDN) for module in codec.g_a)
    files = codec.compress(faces(3), 1)
    decoded = codec.decompress(files, 48, 48)
    assert torch.equal(decoded, codec.estimate(faces(3), 1).x_hat.clamp(0, 1))
