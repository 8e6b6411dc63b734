"""What a study is told: one file for all of its stages."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trainer.augment import Augmentation
from trainer.config import StageConfig
from trainer.data.images import FaceFormat

# CompressAI's zoo: weights of 255² · MSE against bits per pixel.
ZOO_LMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)
MILD = Augmentation(
    scale=0.08,
    shift=0.04,
    roll_deg=6.0,
    contrast=0.2,
    brightness=0.1,
    gamma=0.2,
    blur_share=0.0,
    erase_share=0.0,
    noise_share=0.0,
)
NONE = Augmentation(**dict.fromkeys(MILD.__dict__, 0.0))


@dataclass(frozen=True)
class CodecConfig:
    """Size of the hyperprior codec.

    width, latent_channels: N and M. rates: bitrates of one model, from gains.
    zoo_quality: 1 to 8 takes CompressAI's own sizes and its one lambda instead, for a GPU: a model
        for each rate, as the paper has it.
    """

    width: int = 48
    latent_channels: int = 96
    rates: int = 8
    zoo_quality: int | None = None


@dataclass(frozen=True)
class PretrainConfig(StageConfig):
    """The generic codec on photographs: bits per pixel + lmbda · 255² · MSE.

    crops: how many are cut; lmbdas: one for each rate, the lowest bitrate first.
    """

    crops: int = 51200
    lmbdas: tuple[float, ...] = ZOO_LMBDAS
    epochs: int = 10
    batch_faces: int = 64
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_share: float = 0.05
    mixup_share: float = 0.0
    augmentation: Augmentation = field(default_factory=lambda: NONE)


@dataclass(frozen=True)
class TuneConfig(StageConfig):
    """Tuning a pretrained codec for a classifier.

    loss = lmbda · bits + distortion · 100 · MSE + features · feature distortion
         + cross_entropy · cross-entropy, MSE on a 0..1 scale.
    lmbdas: one for each rate, the lowest bitrate first.
    target_bytes, target_accuracy: one for each rate; when set, lmbdas are where the weights start,
        and they move until the training faces meet the targets (trainer.targets). Bytes are ideal
        ones, of the latents alone.
    clean_share: of each batch, faces that the classifier also learns from uncompressed; only when
        the classifier is trained.
    start_gain: pretrained gains are multiplied by this: a codec tuned for few bytes starts nearer.
    """

    epochs: int = 4
    batch_faces: int = 64
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 1e-3
    warmup_share: float = 0.1
    mixup_share: float = 0.0
    augmentation: Augmentation = field(default_factory=lambda: MILD)
    lmbdas: tuple[float, ...] = (0.012, 0.008, 0.005, 0.003, 0.002, 0.0012, 0.0007, 0.0004)
    target_bytes: tuple[float, ...] | None = None
    target_accuracy: tuple[float, ...] | None = None
    distortion: float = 0.2
    features: float = 0.2
    cross_entropy: float = 1.0
    clean_share: float = 0.5
    start_gain: float = 0.5


@dataclass(frozen=True)
class GridConfig:
    """The study of loss weights: every pair of weights tunes the codec for a short while.

    Each pair gets one epoch over so many faces.
    """

    cross_entropy: tuple[float, ...] = (0.0, 0.3, 1.0)
    features: tuple[float, ...] = (0.0, 0.2, 1.0)
    faces: int = 8192


@dataclass(frozen=True)
class StudyConfig:
    """One study: what the stages are told, and where things are.

    data: labelled faces in a layout that trainer.data reads. photos: folder of photographs.
    photos_valid: others, to see how the generic codec does; photos' own when not given.
    out: checkpoints and logs; a stage that was killed goes on from there.
    seeds: finetune and joint are trained once for each.
    """

    data: Path
    photos: Path
    out: Path
    photos_valid: Path | None = None
    seed: int = 0
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int | None = None
    checkpoint_steps: int = 100
    max_faces: int | None = None
    classifier_width: int = 32
    edge_width: int = 12
    dropout: float = 0.2
    face: FaceFormat = field(default_factory=FaceFormat)
    codec: CodecConfig = field(default_factory=CodecConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    classifier: StageConfig = field(default_factory=StageConfig)
    finetune: TuneConfig = field(default_factory=TuneConfig)
    joint: TuneConfig = field(default_factory=TuneConfig)
    adapt: StageConfig = field(default_factory=StageConfig)
    edge: StageConfig = field(default_factory=StageConfig)
    grid: GridConfig = field(default_factory=GridConfig)
