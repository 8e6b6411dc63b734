"""Loss weights that move to meet a byte and a PSNR target."""

import math

import torch
from torch import Tensor, nn

from trainer.config import JointConfig

# Steps over which a batch's figures are averaged, and how fast the weights follow.
MEMORY_STEPS = 30
RATE_GAIN = 0.003
PSNR_GAIN_PER_DB = 0.003
# Untrained transforms miss every target; weights that followed would wind up.
SETTLING_SHARE = 0.15
WEIGHT_RANGE = (1e-5, 1e2)


class Multipliers(nn.Module):
    """lmbda and beta as Lagrange multipliers (dual ascent in the log domain).

    Each step, a weight grows by a share of how far its figure misses the target: lmbda when
    faces cost too many bytes, beta when they are reconstructed too poorly. Buffers, so that a
    checkpoint holds them.
    """

    lmbda: Tensor
    beta: Tensor
    mean_bytes: Tensor
    mean_mse: Tensor

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.target_bytes = config.target_bytes
        self.target_psnr_db = config.target_psnr_db
        self.register_buffer("lmbda", torch.tensor(config.lmbda))
        self.register_buffer("beta", torch.tensor(config.beta))
        self.register_buffer("mean_bytes", torch.tensor(math.nan))
        self.register_buffer("mean_mse", torch.tensor(math.nan))

    def update(self, face_bytes: float, mse: float, progress: float) -> None:
        """Take in a batch's mean bytes a face and MSE (0..1 scale), at this share of the steps."""
        self._average(self.mean_bytes, face_bytes)
        self._average(self.mean_mse, mse)
        if progress < SETTLING_SHARE:
            return
        if self.target_bytes is not None:
            miss = math.log(float(self.mean_bytes) / self.target_bytes)
            self._move(self.lmbda, RATE_GAIN * max(-1.0, min(1.0, miss)))
        if self.target_psnr_db is not None:
            miss = self.target_psnr_db + 10 * math.log10(float(self.mean_mse))
            self._move(self.beta, PSNR_GAIN_PER_DB * max(-1.0, min(1.0, miss)))

    @staticmethod
    def _average(mean: Tensor, value: float) -> None:
        old = value if math.isnan(float(mean)) else float(mean)
        mean.fill_(old + (value - old) / MEMORY_STEPS)

    @staticmethod
    def _move(weight: Tensor, log_change: float) -> None:
        weight.mul_(math.exp(log_change)).clamp_(*WEIGHT_RANGE)
