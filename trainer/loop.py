"""Takes a stage through its steps: schedule, averaging, log, checkpoints.

Everything random in a step comes from (seed, step) and everything else from the checkpoint, so
a killed run that goes on ends where it would have ended. Several processes (trainer.processes)
prepare the same batches and share their faces, so they end where one process would, but for
rounding and for what a network does with a whole batch, as batch norm does.
"""

import copy
import json
import os
import time
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from trainer.examples import Examples, as_float
from trainer.processes import current
from trainer.schedule import cycle_at, moving_average, one_cycle, optimizer_of
from trainer.stages import Batch, Figures, Stage

LOG_STEPS = 50


class Run(Protocol):
    """What the loop needs to know of a run."""

    @property
    def out(self) -> Path:
        """Folder of the checkpoint and the log."""

    @property
    def seed(self) -> int:
        """What everything random comes from."""

    @property
    def checkpoint_steps(self) -> int:
        """Steps between two checkpoints."""


class StageLoss(nn.Module):
    """A stage's loss as a module: what several processes wrap to share their gradients."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage, self.networks = stage, nn.ModuleList([stage.model, *stage.frozen])

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The stage's loss of (a part of) a prepared batch."""
        return self.stage.loss(batch, progress)


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself; emulated it is ten times slower."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(
        word in flags.read_text() for word in ("avx512_bf16", "amx_bf16", " bf16")
    )


class Loop:
    """One stage's training, from its checkpoint when there is one.

    Raises ValueError for too few faces, and for batches that the processes cannot share evenly.
    """

    def __init__(self, stage: Stage, run: Run, train: Examples, valid: Examples) -> None:
        self.stage, self.run = stage, run
        self.train, self.valid = train, valid
        self.processes = current()
        self.share = self.processes.share(stage.config.batch_faces)
        stage.model.to(memory_format=torch.channels_last)
        loss = StageLoss(stage).to(self.processes.device)
        self.averaged = AveragedModel(
            stage.model, avg_fn=moving_average(stage.config.ema_decay), use_buffers=True
        )
        self.optimizer = optimizer_of(stage)
        self.epoch_steps = len(train) // stage.config.batch_faces
        self.steps = self.epoch_steps * stage.config.epochs
        if not len(valid):
            raise ValueError("no face to see by how training goes: the validation split is empty")
        if not self.steps:
            raise ValueError(f"{len(train)} faces do not fill a batch or there are no epochs")
        self.step = 0
        self.loss = self.processes.together(loss)
        on_gpu = self.processes.device.type == "cuda"
        self.bf16 = torch.cuda.is_bf16_supported() if on_gpu else has_bf16()

    @property
    def checkpoint(self) -> Path:
        """Where this stage's state is kept."""
        return self.run.out / f"{self.stage.name}.pt"

    def fit(self) -> Figures:
        """Take the remaining steps. Returns the averaged networks' figures on held-out faces."""
        self._resume()
        figures: Figures = {}
        with self._bar() as bar:
            while self.step < self.steps:
                shown = self._one_step()
                self.step += 1
                bar.update()
                if self.step % LOG_STEPS == 0:
                    self._log("step", shown)
                    bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items()})
                if self.step % self.epoch_steps == 0:
                    figures = self.evaluate()
                    self._log("epoch", figures)
                    if self.processes.leads:
                        bar.write(f"epoch {self.step // self.epoch_steps}: {_words(figures)}")
                if self.step % self.run.checkpoint_steps == 0 or self.step == self.steps:
                    self._save()
        self.processes.wait()  # What comes next may read the checkpoint.
        return figures or self.evaluate()

    @torch.no_grad()
    def evaluate(self) -> Figures:
        """The averaged networks on the held-out faces; the first process tells all others."""
        figures: Figures = {}
        if self.processes.leads:
            model = copy.deepcopy(self.averaged.module).eval()
            figures = self.stage.evaluate(model, self.valid)
        return self.processes.told(figures)

    def _one_step(self) -> Figures:
        faces, votes = self._batch()
        seed = (self.run.seed << 32) + self.step
        # Dropout of its own for each share; what is prepared is the same in all processes.
        torch.manual_seed(seed + (self.processes.rank << 25))
        generator = torch.Generator().manual_seed(seed + (1 << 24))
        cycle, cycle_step, cycle_steps = cycle_at(self.step, self.epoch_steps, self.stage.config)
        for group in self.optimizer.param_groups:
            peak = one_cycle(cycle_step, cycle_steps, self.stage.config) / 2**cycle
            group["lr"] = peak * group["scale"]
        self.stage.model.train()
        progress = cycle_step / cycle_steps
        whole = self.stage.prepare(faces, votes, progress, generator)
        device = self.processes.device
        batch = tuple(part[self.share].to(device) for part in whole)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            loss, parts = self.loss(batch, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.stage.model.parameters(), 5.0)
        if not torch.isfinite(norm):  # nothing that followed could be saved
            raise ValueError(
                f"{self.stage.name}, step {self.step}: a gradient is infinite or no number; "
                f"{self.checkpoint.name} holds the steps before, if any was written"
            )
        self.optimizer.step()
        self.averaged.update_parameters(self.stage.model)
        shown = self.processes.average({"loss": loss, **parts})
        return {**shown, **self.stage.stepped(shown, progress)}

    def _batch(self) -> tuple[Tensor, Tensor]:
        epoch, index = divmod(self.step, self.epoch_steps)
        order = np.random.default_rng((self.run.seed, epoch)).permutation(len(self.train))
        size = self.stage.config.batch_faces
        chosen = order[index * size : (index + 1) * size]
        return as_float(self.train.pixels[chosen]), torch.from_numpy(self.train.votes[chosen])

    def _bar(self) -> "tqdm[NoReturn]":
        return tqdm(
            total=self.steps,
            initial=self.step,
            desc=self.stage.name,
            unit="step",
            disable=not self.processes.leads,
        )

    def _log(self, event: str, figures: Figures) -> None:
        if not self.processes.leads:
            return
        line = {"time": round(time.time(), 1), "stage": self.stage.name, "event": event}
        with (self.run.out / "log.jsonl").open("a") as log:
            log.write(json.dumps({**line, "step": self.step, **figures}) + "\n")

    def _save(self) -> None:
        if not self.processes.leads:
            return
        state = {
            "step": self.step,
            "model": self.stage.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        # Written beside and moved over: a run killed while writing keeps the checkpoint before.
        unfinished = self.checkpoint.with_suffix(".tmp")
        torch.save(state, unfinished)
        os.replace(unfinished, self.checkpoint)  # noqa: PTH105 — one atomic call

    def _resume(self) -> None:
        if self.checkpoint.exists():
            self._load()
        step = torch.tensor(float(self.step))
        if self.processes.average({"step": step})["step"] != self.step:
            raise ValueError(
                f"not all processes find the same checkpoint at {self.checkpoint}: "
                "the folder has to be one that they share"
            )

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.step = state["step"]
        self.stage.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])


def _words(figures: Figures) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
