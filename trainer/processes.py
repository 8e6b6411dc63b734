"""The processes that train one model: those that torchrun started, or this one alone.

    torchrun --nproc_per_node 2 -m trainer fit …

Every process prepares the same whole batch, takes its share of the faces and works out their
gradients, which are then averaged. The first process evaluates and writes. Numbers between the
processes go through gloo, gradients on GPUs through NCCL.
"""

import gc
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# The others wait while the first evaluates: hours, with a large set and a slow GPU.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    rank: 0 to world - 1. device: where this process computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one evaluates and writes."""
        return self.rank == 0

    def share(self, batch_faces: int) -> slice:
        """Which faces of a batch are this process's. Raises ValueError if shares are uneven."""
        if batch_faces % self.world:
            raise ValueError(
                f"a batch of {batch_faces} faces does not divide among {self.world} processes: "
                f"set batch_faces to a multiple of {self.world}"
            )
        size = batch_faces // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def together(self, loss: nn.Module) -> nn.Module:
        """The loss, such that going backward averages the gradients of all processes."""
        if self.world == 1:
            return loss
        # CompressAI's quantiles have no gradient, which is an error unless it is expected.
        return nn.parallel.DistributedDataParallel(loss, find_unused_parameters=True)

    def average(self, figures: dict[str, Tensor]) -> dict[str, float]:
        """Means of the figures (each of shape ()) over the processes, the same in all of them."""
        means = torch.stack([figure.detach().double() for figure in figures.values()]).cpu()
        if self.world > 1:
            dist.all_reduce(means)
            means /= self.world
        return dict(zip(figures, means.tolist(), strict=True))

    def told(self, figures: dict[str, float]) -> dict[str, float]:
        """The first process's figures, in all of them once it has them."""
        told: list[Any] = [figures]
        if self.world > 1:
            dist.broadcast_object_list(told, src=0)
        return dict(told[0])

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self.average({"nothing": torch.zeros(())})


def current() -> Processes:
    """What torchrun started, joined by the first call; without torchrun this process alone.

    With CUDA, each process has the GPU of its local rank. Raises ValueError if that is missing.
    """
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return Processes(0, 1, device)
    if not dist.is_initialized():
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=PATIENCE)
    return Processes(dist.get_rank(), dist.get_world_size(), device)


def leave() -> None:
    """Part from the other processes, at the end of the program."""
    if dist.is_available() and dist.is_initialized():
        # What is still wrapped for training holds the group, whose threads would outlive Python
        # and end the process by SIGABRT after all was done (pytorch/pytorch, pull request 179291).
        gc.collect()
        dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this machine has no GPU, there are "
            f"{torch.cuda.device_count()}: start no more processes, or hide the GPUs with "
            "CUDA_VISIBLE_DEVICES= to train on CPUs"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
