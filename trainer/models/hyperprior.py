"""The paper's codec: CompressAI's mbt2018-mean, one model for several bitrates.

Minnen, Ballé and Toderici, 2018 (arXiv:1809.02736): y is coded given means and scales that a
second, coarser latent z carries as side information. One model serves all rates through a gain
for every channel and rate, before quantisation, and another after it (Cui et al., 2021,
"Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation", arXiv:2003.02012).

    x ── g_a ── y ──·gain──┬── h_a ── z ──·gain── Q ── z_hat ── h_s ── means, scales
                           └── Q ── y_hat ──·gain── g_s ── x_hat

g_a's nonlinearity is a choice: mbt2018-mean's GDN, made for photographs, or batch norm and ReLU in
its place, which learns to tell expressions apart several times as fast (trainer/LOG.md, run 19).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from compressai.models.base import get_scale_table
from compressai.models.google import MeanScaleHyperprior
from compressai.models.utils import conv, deconv
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.quantise import straight_through

# Adam moves every parameter about as fast; a gain has further to go than a weight.
GAIN_SPEED = 5.0
# Latents of faces stay small; CompressAI's own table reaches 256 and is ten times as slow.
SCALE_TABLE = get_scale_table(min=0.11, max=48, levels=64)
HIGHEST_GAIN_RATIO = 12.0
# Pixels a latent, along either axis.
STRIDE = 16
# rANS writes whole words of 32 bits.
RANS_WORD = 4
HIGHEST_HEADER = 5
DECODED_FACES = 256

Nonlinearity = Literal["gdn", "relu"]


@dataclass(frozen=True)
class Latents:
    """What is sent of a batch.

    y_hat: (N, M, H / 16, W / 16), rounded, its gain taken back. bits: (N,), ideal ones, of noisy
    latents. rounded_bits: (N,), of rounded latents: what coding will really cost. Noise makes every
    silent symbol cost a tenth of a bit that rounding saves. All of them have a gradient.
    """

    y_hat: Tensor
    bits: Tensor
    rounded_bits: Tensor


@dataclass(frozen=True)
class Coded:
    """What the codec makes of a batch.

    x_hat: (N, C, H, W), not clamped. The rest as in Latents.
    """

    x_hat: Tensor
    y_hat: Tensor
    bits: Tensor
    rounded_bits: Tensor


class VariableRateHyperprior(MeanScaleHyperprior):  # type: ignore[misc]  # untyped
    """mbt2018-mean for faces in 0..1 whose sides are multiples of STRIDE.

    width, latent_channels: N and M. channels: 1 or 3. rates: how many bitrates; 1 has no gains.
    nonlinearity: of the analysis transform g_a; the synthesis has inverse GDN in any case.
    Pictures are not padded: where h_s makes more rows than y has, they are cut off.
    """

    def __init__(
        self,
        width: int,
        latent_channels: int,
        channels: int,
        rates: int,
        nonlinearity: Nonlinearity = "gdn",
    ) -> None:
        super().__init__(width, latent_channels)
        self.rates = rates
        self.g_a[0] = conv(channels, width)
        self.g_s[-1] = deconv(width, channels)
        for module in (self.g_a[0], self.g_s[-1]):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            nn.init.zeros_(module.bias)
        if nonlinearity == "relu":
            self._rectify()
        steps = torch.linspace(0, 1, rates) if rates > 1 else torch.zeros(1)
        start = steps.view(-1, 1) * math.log(HIGHEST_GAIN_RATIO) / GAIN_SPEED
        self.gain = nn.Parameter(start.repeat(1, latent_channels))
        self.inverse_gain = nn.Parameter(-start.repeat(1, latent_channels))
        self.side_gain = nn.Parameter(torch.zeros(rates, width))
        self.inverse_side_gain = nn.Parameter(torch.zeros(rates, width))

    def noise(self, faces: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Uniform noise in ±½ for y and z of these faces (N, C, H, W)."""
        h, w = faces.shape[-2] // STRIDE, faces.shape[-1] // STRIDE
        y = (len(faces), self.M, h, w)
        z = (len(faces), self.N, *self._side_size(h, w))
        return (
            torch.rand(y, generator=generator) - 0.5,
            torch.rand(z, generator=generator) - 0.5,
        )

    def forward(self, x: Tensor, rate: Tensor, y_noise: Tensor, z_noise: Tensor) -> Coded:
        """Code a batch while training. x: (N, C, H, W) in 0..1; the rest as for latents."""
        latents = self.latents(x, rate, y_noise, z_noise)
        x_hat = self.reconstruct(latents.y_hat)
        return Coded(x_hat, latents.y_hat, latents.bits, latents.rounded_bits)

    def latents(self, x: Tensor, rate: Tensor, y_noise: Tensor, z_noise: Tensor) -> Latents:
        """What of a batch is sent, while training; cheaper than forward.

        x: (N, C, H, W) in 0..1. rate: int64 (N,). y_hat is rounded with a straight-through gradient
        (Minnen and Singh, 2020, arXiv:2007.08739).
        """
        y = self._analysed(x, rate)
        z = self._side(y, rate)
        with torch.autocast(x.device.type, enabled=False):
            medians = self.entropy_bottleneck._get_medians().view(1, -1, 1, 1)
            z_bits = self._side_bits(z + z_noise)
            z_hat = straight_through(z - medians) + medians
        scales, means = self._entropy_parameters(z_hat, rate, y)
        with torch.autocast(x.device.type, enabled=False):
            bits = self._bits(y + y_noise, scales, means) + z_bits
            y_hat = straight_through(y - means) + means
            rounded_bits = self._bits(y_hat, scales, means) + self._side_bits(z_hat)
            return Latents(y_hat * _per_channel(self.inverse_gain, rate), bits, rounded_bits)

    def reconstruct(self, y_hat: Tensor) -> Tensor:
        """Faces (N, C, H, W), not clamped, from dequantised latents (N, M, H / 16, W / 16)."""
        with torch.autocast(y_hat.device.type, enabled=False):
            inner = self.g_s[0](y_hat)
        x_hat: Tensor = self.g_s[1:](inner).float() + 0.5
        return x_hat

    @torch.no_grad()
    def estimate(self, x: Tensor, rate: int) -> Coded:
        """As forward, with rounded latents throughout: bits by entropy, for logs only."""
        rates = torch.full((len(x),), rate, device=x.device)
        y = self._analysed(x, rates)
        medians = self.entropy_bottleneck._get_medians().view(1, -1, 1, 1)
        z_hat = torch.round(self._side(y, rates) - medians) + medians
        scales, means = self._entropy_parameters(z_hat, rates, y)
        y_hat = torch.round(y - means) + means
        bits = self._bits(y_hat, scales, means) + self._side_bits(z_hat)
        dequantised = y_hat * _per_channel(self.inverse_gain, rates)
        return Coded(self.reconstruct(dequantised), dequantised, bits, bits)

    @torch.no_grad()
    def scale_gains(self, factors: tuple[float, ...]) -> None:
        """Multiply y by a factor for each rate before quantisation, and by its inverse after it."""
        logs = torch.log(torch.tensor(factors)).view(-1, 1) / GAIN_SPEED
        self.gain.add_(logs)
        self.inverse_gain.sub_(logs)

    def freeze_tables(self) -> None:
        """Make the integer tables that compress and decompress read; after training."""
        self.update(scale_table=SCALE_TABLE, force=True, update_quantiles=True)

    @torch.no_grad()
    def compress(self, x: Tensor, rate: int) -> list[bytes]:
        """One file for each face: a header, z's string, y's string.

        The strings are what CompressAI's rANS coder writes. The header has the rate and how long
        z's string is, in a byte where that is enough. The size of the face is the model's.
        """
        rates = torch.full((len(x),), rate)
        y = self._analysed(x, rates)
        z = self._side(y, rates)
        z_strings = self.entropy_bottleneck.compress(z)
        z_hat = self.entropy_bottleneck.decompress(z_strings, z.shape[-2:])
        scales, means = self._entropy_parameters(z_hat, rates, y)
        indexes = self.gaussian_conditional.build_indexes(scales)
        y_strings = self.gaussian_conditional.compress(y, indexes, means=means)
        return [
            _header(rate, self.rates, side) + side + string
            for side, string in zip(z_strings, y_strings, strict=True)
        ]

    @torch.no_grad()
    def decompress(self, files: list[bytes], height: int, width: int) -> Tensor:
        """Faces (N, C, height, width) in 0..1 from files of one rate. Raises ValueError."""
        parsed = [_parse(file, self.rates) for file in files]
        rate = parsed[0][0]
        if any(other != rate for other, _, _ in parsed):
            raise ValueError("files of one batch must have one rate")
        rates = torch.full((len(files),), rate)
        h, w = height // STRIDE, width // STRIDE
        z_hat = self.entropy_bottleneck.decompress([z for _, z, _ in parsed], self._side_size(h, w))
        like = torch.empty(len(files), self.M, h, w)
        scales, means = self._entropy_parameters(z_hat, rates, like)
        indexes = self.gaussian_conditional.build_indexes(scales)
        y_hat = self.gaussian_conditional.decompress(
            [y for _, _, y in parsed], indexes, means=means
        )
        return self.reconstruct(y_hat * _per_channel(self.inverse_gain, rates)).clamp(0, 1)

    def _rectify(self) -> None:
        """Batch norm and ReLU for GDN in g_a, and weights that keep the signal's power."""
        for at in (0, 2, 4):
            nn.init.kaiming_normal_(self.g_a[at].weight, nonlinearity="relu")
            nn.init.zeros_(self.g_a[at].bias)
            self.g_a[at + 1] = nn.Sequential(
                nn.BatchNorm2d(self.g_a[at].out_channels), nn.ReLU(inplace=True)
            )

    def _analysed(self, x: Tensor, rate: Tensor) -> Tensor:
        inner = self.g_a[:-1](x - 0.5)
        # bfloat16 has 8 bits: too coarse for what is rounded to integers right after.
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.g_a[-1](inner.float())
            return y * _per_channel(self.gain, rate)

    def _side(self, y: Tensor, rate: Tensor) -> Tensor:
        z: Tensor = self.h_a(y).float() * _per_channel(self.side_gain, rate)
        return z

    def _entropy_parameters(
        self, z_hat: Tensor, rate: Tensor, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        parameters = self.h_s(z_hat * _per_channel(self.inverse_side_gain, rate)).float()
        scales, means = parameters[..., : like.shape[-2], : like.shape[-1]].chunk(2, 1)
        return scales, means

    def _bits(self, y: Tensor, scales: Tensor, means: Tensor) -> Tensor:
        # _likelihood is forward without its own noise, which comes from the caller's generator.
        likelihood = self.gaussian_conditional._likelihood(y, scales, means)
        bounded = self.gaussian_conditional.likelihood_lower_bound(likelihood)
        return -torch.log2(bounded).sum(dim=(1, 2, 3))

    def _side_bits(self, z: Tensor) -> Tensor:
        by_channel = z.transpose(0, 1)
        values = by_channel.reshape(z.shape[1], 1, -1)
        likelihood, _, _ = self.entropy_bottleneck._likelihood(values)
        bounded = self.entropy_bottleneck.likelihood_lower_bound(likelihood)
        bits = -torch.log2(bounded).reshape(by_channel.shape).transpose(0, 1)
        return bits.sum(dim=(1, 2, 3))

    @staticmethod
    def _side_size(height: int, width: int) -> tuple[int, int]:
        return -(-height // 4), -(-width // 4)


def decoded_at_random(
    codec: VariableRateHyperprior, pixels: NDArray[np.uint8], seed: int
) -> NDArray[np.uint8]:
    """Every face at a rate drawn for it. pixels: uint8 (N, C, H, W); returns the same.

    By way of estimate, which reconstructs what decompress does, to the last bit on one machine.
    """
    rates = np.random.default_rng(seed).integers(codec.rates, size=len(pixels))
    decoded = np.empty_like(pixels)
    for rate in range(codec.rates):
        chosen = np.flatnonzero(rates == rate)
        for start in range(0, len(chosen), DECODED_FACES):
            part = chosen[start : start + DECODED_FACES]
            x_hat = codec.estimate(torch.from_numpy(pixels[part]).float() / 255, rate).x_hat
            decoded[part] = (x_hat.clamp(0, 1) * 255).round().byte().numpy()
    return decoded


def zoo_sizes(quality: int) -> tuple[int, int]:
    """N and M of CompressAI's mbt2018-mean at quality 1 to 8."""
    if not 1 <= quality <= 8:
        raise ValueError(f"CompressAI's qualities are 1 to 8, not {quality}")
    return (128, 192) if quality <= 4 else (192, 320)


def _per_channel(logs: Tensor, rate: Tensor) -> Tensor:
    return torch.exp(GAIN_SPEED * logs[rate]).view(len(rate), -1, 1, 1)


def _header(rate: int, rates: int, side: bytes) -> bytes:
    """Words of z's string · rates + rate, seven bits a byte, the lowest first (LEB128)."""
    value = len(side) // RANS_WORD * rates + rate
    header = bytearray()
    while value > 127:
        header.append(value & 127 | 128)
        value >>= 7
    return bytes([*header, value])


def _parse(file: bytes, rates: int) -> tuple[int, bytes, bytes]:
    """Rate, z's string, y's string. Raises ValueError for a file that is too short."""
    value = 0
    for start, byte in enumerate(file[:HIGHEST_HEADER], 1):
        value |= (byte & 127) << 7 * (start - 1)
        if byte < 128:
            break
    else:
        raise ValueError(f"{len(file)} bytes are too few for a coded face, or not one")
    words, rate = divmod(value, rates)
    end = start + words * RANS_WORD
    if len(file) < end:
        raise ValueError(f"z's string of {end - start} bytes is cut off in a file of {len(file)}")
    return rate, file[start:end], file[end:]
