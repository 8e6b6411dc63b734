"""How far each step of a stage goes: cycles of the learning rate, its shares, the average taken."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from trainer.config import StageConfig
from trainer.stages import Stage


def cycle_at(step: int, epoch_steps: int, config: StageConfig) -> tuple[int, int, int]:
    """Which cycle a step is in (from 0), how many steps into it, and how many it has.

    Raises ValueError for restarts that are not epochs of the stage in order.
    """
    bounds = [epoch_steps * epoch for epoch in (0, *config.restarts, config.epochs)]
    if sorted(set(bounds)) != bounds:
        raise ValueError(f"restarts {config.restarts} must rise, within {config.epochs} epochs")
    cycle = sum(step >= bound for bound in bounds[1:-1])
    return cycle, step - bounds[cycle], bounds[cycle + 1] - bounds[cycle]


def one_cycle(step: int, steps: int, config: StageConfig) -> float:
    """Learning rate: a cosine up to the peak over warmup_share, and a cosine down to none."""
    warmup = max(1, round(steps * config.warmup_share))
    if step < warmup:
        share = 0.04 + 0.96 * (1 - math.cos(math.pi * step / warmup)) / 2
    else:
        share = (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
    return config.learning_rate * share


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential moving average that forgets faster at first, as the start is no good."""

    def average(mean: Tensor, value: Tensor, taken: Tensor | int) -> Tensor:
        n = int(taken)
        return mean + (value - mean) * (1 - min(decay, (1 + n) / (10 + n)))

    return average


def learning_rate_share(name: str, shares: Mapping[str, float]) -> float:
    """Of the learning rate, what a parameter gets: by the first of the names that it is within."""
    within = (share for part, share in shares.items() if f"{name}.".startswith(f"{part}."))
    return next(within, 1.0)


def optimizer_of(stage: Stage) -> torch.optim.Optimizer:
    """What takes a stage's steps; each group of weights has its share of the rate in `scale`."""
    config = stage.config
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in stage.model.named_parameters():
        # Norms, biases, gains and a prior's scalars are no weights of a sum: decay would only bias
        # them.
        decayed = parameter.dim() in (2, 4) and not name.endswith("log_gains")
        scale = learning_rate_share(name, stage.learning_rate_shares)
        groups.setdefault((decayed, scale), []).append(parameter)
    settings = [
        {"params": group, "weight_decay": config.weight_decay if decayed else 0.0, "scale": scale}
        for (decayed, scale), group in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=config.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(settings, lr=config.learning_rate)
