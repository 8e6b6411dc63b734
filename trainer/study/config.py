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
    tuned_nonlinearity: of the tuned codecs' analysis (trainer.models.hyperprior); with "relu" they
        start from latents, since they cannot take over the generic codec's analysis.
    zoo_quality: 1 to 8 takes CompressAI's own sizes and its one lambda instead, for a GPU: a model
        for each rate, as the paper has it.
    """

    width: int = 48
    latent_channels: int = 96
    rates: int = 8
    tuned_nonlinearity: Literal["gdn", "relu"] = "gdn"
    zoo_quality: int | None = None


@dataclass(frozen=True)
class PretrainConfig(StageConfig):
    """The generic codec on photographs: bits per pixel + lmbda · 255² · MSE.

    crops: how many are cut to learn from, valid_crops: to look at after each epoch.
    lmbdas: one for each rate, the lowest bitrate first.
    """

    crops: int = 51200
    valid_crops: int = 512
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
class LatentsConfig(StageConfig):
    """Teaching the analysis to tell expressions apart by a head on the latents, not kept.

    loss = lmbda · bits of rounded latents + cross-entropy.
    lmbdas: one for each rate, the lowest bitrate first. rate_warmup_share: of a cycle, the steps in
        which lmbda rises from a hundredth of them.
    start_gains: what a new codec's gains are multiplied by, one for each rate.
    balance, valid_faces: as for tuning.
    synthesis_share: of a cycle, the steps at its end in which g_s learns distortion · 100 · MSE;
        what is sent gets no gradient from that.
    head_width: of the head's hidden layer.
    """

    epochs: int = 8
    batch_faces: int = 64
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup_share: float = 0.1
    mixup_share: float = 0.0
    augmentation: Augmentation = field(default_factory=lambda: MILD)
    lmbdas: tuple[float, ...] = (1e-2, 7e-3, 5e-3, 3.5e-3, 2.4e-3, 1.6e-3, 1e-3, 6e-4)
    rate_warmup_share: float = 0.6
    start_gains: tuple[float, ...] = (0.6, 0.53, 0.46, 0.41, 0.36, 0.31, 0.275, 0.24)
    balance: float = 0.5
    valid_faces: int = 1024
    synthesis_share: float = 0.35
    distortion: float = 1.0
    head_width: int = 256
    head_dropout: float = 0.2


@dataclass(frozen=True)
class TuneConfig(StageConfig):
    """Tuning a pretrained codec for a classifier.

    loss = lmbda · bits + distortion · 100 · MSE + features · feature distortion
         + cross_entropy · cross-entropy + latents · cross-entropy of the head on the latents,
    MSE on a 0..1 scale.
    start: the stage whose codec is where this one starts: the generic one, the one that was taught
        by its latents, or the same seed's.
    lmbdas: one for each rate, the lowest bitrate first.
    target_bytes, target_accuracy: one for each rate; when set, lmbdas are where the weights start,
        and they move until the training faces meet the targets (trainer.targets). Bytes are ideal
        ones, of the latents alone.
    rounded_rate: the rate is that of rounded latents, with a straight-through gradient, and not
        that of noisy ones: for few bytes, where noise costs more than everything that is said.
    feature_stages: so many of the classifier's last stages are compared; the first ones see pixels
        and ask for as many bits as distortion does.
    balance: each rate's loss counts by lmbda to the power of -balance; 0 for all alike.
    classifier_share: of the learning rate, what the classifier gets: it starts trained, and the
        codec's rate would tear it down.
    prior_share: as many times the learning rate for what predicts the latents (h_a, h_s and z's
        prior): it starts from photographs, where nothing has a place of its own as in faces.
    clean_share: of each batch, faces that the classifier also learns from uncompressed, by the same
        weights times clean_weight; only when the classifier is trained.
    valid_faces: so many of the validation split are looked at after each epoch.
    start_gains: the pretrained gains are multiplied by these: a codec that is tuned for few bytes
        starts nearer to them.
    """

    start: Literal["pretrain", "latents", "finetune"] = "pretrain"
    epochs: int = 4
    batch_faces: int = 64
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 1e-3
    warmup_share: float = 0.1
    mixup_share: float = 0.0
    augmentation: Augmentation = field(default_factory=lambda: MILD)
    lmbdas: tuple[float, ...] = (2.5e-3, 1.8e-3, 1.2e-3, 7e-4, 4e-4, 2e-4, 8e-5, 3e-5)
    target_bytes: tuple[float, ...] | None = None
    target_accuracy: tuple[float, ...] | None = None
    distortion: float = 0.2
    features: float = 0.2
    feature_stages: int = 4
    cross_entropy: float = 1.0
    latents: float = 0.0
    rounded_rate: bool = False
    balance: float = 0.5
    classifier_share: float = 0.1
    prior_share: float = 1.0
    clean_share: float = 0.25
    clean_weight: float = 1.0
    valid_faces: int = 1024
    start_gains: tuple[float, ...] = (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 0.9)


@dataclass(frozen=True)
class GridConfig:
    """The study of loss weights: every pair of weights tunes the codec for a short while.

    Each pair gets one epoch over so many faces, and is judged at so many bytes a face.
    """

    cross_entropy: tuple[float, ...] = (0.0, 0.3, 1.0)
    features: tuple[float, ...] = (0.0, 0.2, 1.0)
    faces: int = 8192
    bytes: float = 60.0


@dataclass(frozen=True)
class StudyConfig:
    """One study: what the stages are told, and where things are.

    data: labelled faces in a layout that trainer.data reads. photos: folder of photographs.
    photos_valid: others, to see how the generic codec does; photos' own when not given.
    out: checkpoints and logs; a stage that was killed goes on from there.
    seeds: finetune and joint are trained once for each.
    max_faces: use only so many faces of each split, for trying things out.
    classifier_width, edge_width: first width of the classifier, and of one of the encoder's cost.
    adapt_faces: no more training faces than these are coded for adapting; AVIF takes its time.
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
    edge_width: int = 16
    adapt_faces: int | None = None
    dropout: float = 0.2
    face: FaceFormat = field(default_factory=FaceFormat)
    codec: CodecConfig = field(default_factory=CodecConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    classifier: StageConfig = field(default_factory=StageConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    finetune: TuneConfig = field(default_factory=TuneConfig)
    joint: TuneConfig = field(default_factory=TuneConfig)
    adapt: StageConfig = field(default_factory=StageConfig)
    edge: StageConfig = field(default_factory=StageConfig)
    grid: GridConfig = field(default_factory=GridConfig)
