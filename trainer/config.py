"""What a training run is told: frozen dataclasses, filled from a preset and flags."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trainer.augment import Augmentation


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks.

    analysis_widths: channels of the four stages of g_a and of the pixel classifier.
    latent_channels: C of the latent (C, 3, 3).
    synthesis_widths: channels of g_s at 3×3, 6×6, 12×12 and 24×24.
    latent_classifier_width: channels of the classifier that reads the latent.
    """

    analysis_widths: tuple[int, int, int, int] = (32, 64, 128, 256)
    latent_channels: int = 24
    synthesis_widths: tuple[int, int, int, int] = (160, 112, 56, 32)
    latent_classifier_width: int = 192
    prior_components: int = 2
    dropout: float = 0.2


@dataclass(frozen=True)
class StageConfig:
    """How one stage is optimised.

    learning_rate is the peak of a one-cycle schedule (Smith, 2018, arXiv:1803.09820).
    restarts: epochs at which another cycle begins, each with half the peak of the one before
        (Loshchilov and Hutter, 2017, arXiv:1608.03983).
    mixup_share: share of batches that are blended; mixup_alpha: how evenly.
    calm_share: share of a cycle's steps, at its end, without mixup and with little augmentation:
        what is learnt last should look like what is met later.
    """

    epochs: int = 20
    batch_faces: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    warmup_share: float = 0.2
    restarts: tuple[int, ...] = ()
    ema_decay: float = 0.998
    mixup_share: float = 0.5
    mixup_alpha: float = 0.4
    calm_share: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class JointConfig(StageConfig):
    """Joint training of codec and latent classifier.

    loss = lmbda · bits + beta · 100 · MSE + gamma · cross-entropy, MSE on a 0..1 scale; the
    cross-entropy's target is votes and teacher, teacher_share of it the teacher's.
    target_bytes and target_psnr_db: when set, lmbda and beta move until the training faces meet
    them (dual ascent); the weights given are then where they start.
    noise_share: share of the steps in which quantisation is additive noise; rounding with a
    straight-through gradient after that.
    """

    epochs: int = 23
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-2
    mixup_share: float = 0.2
    calm_share: float = 0.2
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(erase_share=0.0))
    lmbda: float = 2e-3
    beta: float = 1.0
    gamma: float = 2.5
    teacher_share: float = 0.5
    target_bytes: float | None = None
    target_psnr_db: float | None = None
    noise_share: float = 0.5


@dataclass(frozen=True)
class FitConfig:
    """One run: the pixel classifier, then codec and latent classifier jointly.

    data: a dataset folder in a layout that trainer.data reads. out: where checkpoints and the
    log go; a run that was killed goes on from there.
    max_faces: use only so many faces of each split, for trying things out.
    start: the folder of a finished run to go on from with other settings: its pixel classifier
        is kept, its joint networks are where joint training starts.
    """

    data: Path
    out: Path
    seed: int = 0
    threads: int | None = None
    checkpoint_steps: int = 100
    max_faces: int | None = None
    start: Path | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    classifier: StageConfig = field(default_factory=StageConfig)
    joint: JointConfig = field(default_factory=JointConfig)
