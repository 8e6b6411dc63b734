"""What a training run is told: frozen dataclasses, filled from a preset and flags."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trainer.augment import Augmentation


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks.

    teacher_width: of the ResNet-18 that is the pixel classifier and the teacher.
    analysis_widths: channels of g_a at 24×24, 12×12, 6×6 and 3×3.
    latent_channels: C of the base latent (C, 3, 3).
    latent_classifier_width: of the classifier that reads the latent.
    enhancement_channels: E of the enhancement (E, 1, 1), all layers together: a face's gain and
        E - 1 components.
    synthesis_widths: of g_s, what is hidden between symbols and picture, channels at 12×12, at
        24×24.
    """

    teacher_width: int = 32
    analysis_widths: tuple[int, int, int, int] = (24, 36, 72, 144)
    latent_channels: int = 32
    latent_classifier_width: int = 384
    enhancement_channels: int = 512
    synthesis_widths: tuple[int, int, int] = (512, 96, 36)
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
class BaseConfig(StageConfig):
    """The base layer: codec and latent classifier together, for all quality levels at once.

    loss = lmbda[level] · bits + cross-entropy + imitation · distance of the teacher's features; the
    cross-entropy's target is votes and teacher, teacher_share of it the teacher's.
    level_bytes: what a latent should cost at each level, by entropy; lmbda follows (dual ascent)
    from lmbda[0] at the lowest to lmbda[1] at the highest level.
    ramp_share: share of the steps in which lmbda rises. noise_share: share in which the classifier
    sees additive noise; rounding with a straight-through gradient after that. Bits are of noise to
    the end. placed: whether levels are put at level_bytes after training, by their gains.
    """

    epochs: int = 50
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 2.0e-3
    weight_decay: float = 2e-2
    warmup_share: float = 0.1
    ema_decay: float = 0.999
    mixup_share: float = 0.4
    mixup_alpha: float = 1.0
    calm_share: float = 0.2
    level_bytes: tuple[float, ...] = (0.99, 1.65, 2.8, 4.6, 7.5, 12, 20, 32)
    lmbda: tuple[float, float] = (4e-3, 2e-4)
    teacher_share: float = 0.75
    imitation: float = 0.3
    noise_share: float = 0.3
    ramp_share: float = 0.1
    placed: bool = True


@dataclass(frozen=True)
class EnhancementConfig(StageConfig):
    """Enhancement layers and g_s, the base being there already.

    loss = MSE in dB + lmbda[layer] · bits + expression · what the teacher sees of the difference.
    layer_bytes: what each layer should cost, by entropy. layer_channels: how many channels each
    has, the first one first.
    """

    epochs: int = 24
    batch_faces: int = 64
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1.2e-3
    weight_decay: float = 1e-3
    warmup_share: float = 0.1
    ema_decay: float = 0.999
    mixup_share: float = 0.0
    calm_share: float = 0.3
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(0.1, 0.05, 8.0, 0.15, 0.08, 0.25, 0.05, 0.0, 0.05)
    )
    layer_bytes: tuple[float, ...] = (30, 70)
    layer_channels: tuple[int, ...] = (64, 448)
    lmbda: float = 4e-3
    expression: float = 0.0


@dataclass(frozen=True)
class SynthesisConfig(StageConfig):
    """g_s alone, for the symbols that devices choose; without epochs it stays as it is.

    loss = MSE in dB + expression · what the teacher sees of pictures that lack layers.
    bytes: what all layers should cost a face, in chunks of eight; gains are moved for that.
    """

    epochs: int = 10
    batch_faces: int = 128
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 6e-4
    weight_decay: float = 1e-3
    warmup_share: float = 0.03
    ema_decay: float = 0.999
    mixup_share: float = 0.0
    # As they are, but for mirrors: what is resampled is smoother than what is judged.
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)
    )
    bytes: float = 95.0
    expression: float = 0.5


@dataclass(frozen=True)
class FitConfig:
    """One run: the pixel classifier that teaches, the base layer, the enhancement layers, and once
    more what draws them.

    data: a dataset folder in a layout that trainer.data reads. out: where checkpoints and the
    log go; a run that was killed goes on from there.
    max_faces: use only so many faces of each split, for trying things out.
    teacher: a released pixel classifier (.npz) to teach instead of one that is trained first.
    start: the folder of a finished run to go on from with other settings: its networks are where
        base and enhancement begin. Without epochs of its own the base stays as it is there.
    bundle: the same with a released bundle instead of a run.
    """

    data: Path
    out: Path
    seed: int = 0
    threads: int | None = None
    checkpoint_steps: int = 100
    max_faces: int | None = None
    teacher: Path | None = None
    start: Path | None = None
    bundle: Path | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    classifier: StageConfig = field(default_factory=StageConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    enhancement: EnhancementConfig = field(default_factory=EnhancementConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
