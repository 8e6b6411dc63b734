"""What a network costs: multiplications with additions, counted while it runs."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.data.images import FaceFormat
from trainer.models.hyperprior import VariableRateHyperprior


def classifier_macs(classifier: nn.Module, face: FaceFormat) -> int:
    """Multiply-accumulates of one face through a classifier."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        classifier.eval()(torch.zeros(1, *face.shape))
    return int(counter.get_total_flops()) // 2


def encoder_macs(codec: VariableRateHyperprior, face: FaceFormat) -> int:
    """Multiply-accumulates of one face through what an encoder has to run: g_a, h_a and h_s."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = codec.g_a(torch.zeros(1, *face.shape))
        codec.h_s(codec.h_a(y))
    return int(counter.get_total_flops()) // 2
