"""Tuning a codec for a classifier: the codec alone, or both.

    face ── codec ── x_hat ── classifier ── features, logits
                     rate · distortion · feature distortion · cross-entropy

Feature distortion compares what the classifier's stages make of x_hat with what the original
classifier's make of the face, each relative to its power, so that no stage drowns the others. The
original is the reference also where the classifier learns: it is then taught by it, too, and what
it knew of uncompressed faces is held.
"""

import copy
import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from trainer.examples import Examples, device_of, in_parts
from trainer.models.hyperprior import VariableRateHyperprior
from trainer.models.resnet import ResNet18
from trainer.stages import Batch, Figures, augmented, cross_entropies, psnr_sum, soft_cross_entropy
from trainer.study.config import TuneConfig
from trainer.study.rates import balance, by_rate, check_rates
from trainer.targets import Multiplier

# How fast the weight of the rate follows a target, and when it starts to.
RATE_GAIN = 0.002
RATE_PROPORTION = 1.0
ACCURACY_GAIN = 0.02
SETTLING_SHARE = 0.03
# What only says how likely the latents are. It can learn what faces are like much faster than the
# transforms may move without losing what they know.
PRIOR = ("h_a", "h_s", "entropy_bottleneck")


class TuneStage:
    """The codec, and with train_classifier the classifier too.

    head: reads the latents while training and is no part of what is judged (trainer.study.latents).
    Raises ValueError when a setting that counts rates has another number of them than the codec.
    """

    def __init__(
        self,
        name: str,
        config: TuneConfig,
        codec: VariableRateHyperprior,
        classifier: ResNet18,
        train_classifier: bool,
        head: nn.Module | None = None,
    ) -> None:
        self.name, self.config, self.train_classifier = name, config, train_classifier
        self.codec, self.classifier = codec, classifier
        check_rates(
            codec.rates,
            config.lmbdas,
            config.start_gains,
            config.target_bytes,
            config.target_accuracy,
        )
        if config.target_bytes and config.target_accuracy:
            raise ValueError("give target_bytes or target_accuracy: one weight meets one of them")
        if not 1 <= config.feature_stages <= len(classifier.stages):
            raise ValueError(
                f"feature_stages must be 1 to {len(classifier.stages)}, not {config.feature_stages}"
            )
        by_accuracy = config.target_accuracy is not None
        gain = ACCURACY_GAIN if by_accuracy else RATE_GAIN
        proportion = 0.0 if by_accuracy else RATE_PROPORTION
        self.lmbda = Multiplier(list(config.lmbdas), gain, SETTLING_SHARE, proportion)
        networks: dict[str, nn.Module] = {"codec": codec, "lmbda": self.lmbda}
        self.head = head
        if head is not None:
            networks["head"] = head
        self.original = classifier
        if train_classifier:
            self.original = copy.deepcopy(classifier)
            networks["classifier"] = classifier
        self.original.eval().requires_grad_(False)
        # The loop does this for what it trains: a frozen network is a quarter faster too.
        self.original.to(memory_format=torch.channels_last)
        self.model: nn.Module = nn.ModuleDict(networks)
        self.frozen: tuple[nn.Module, ...] = (self.original,)
        self.learning_rate_shares = {
            "classifier": config.classifier_share,
            **{f"codec.{part}": config.prior_share for part in PRIOR},
        }
        codec.scale_gains(config.start_gains)

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces, votes, rates, weights, whether also learnt clean, and noise.

        Weights are such that the mean of weight · value over the faces, 0 for those of another
        rate, is the value's mean at a rate; and shares of a batch average to that too.
        """
        faces, votes = augmented(faces, votes, self.config, progress, generator)
        rates = torch.arange(len(faces)) % self.codec.rates
        weights = len(faces) / torch.bincount(rates)[rates]
        clean = torch.rand(len(faces), generator=generator) < self.config.clean_share
        noise = self.codec.noise(faces, generator)
        return faces, votes, rates, weights, clean, *noise

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """lmbda · bits + distortion + feature distortion + cross-entropy, each weighted."""
        # Batch norm keeps the statistics of uncompressed faces: a batch holds all rates at once,
        # and no rate is like their mixture.
        self.classifier.eval()
        faces, votes, rates, weights, clean, y_noise, z_noise = batch
        coded = self.codec(faces, rates, y_noise, z_noise)
        mse = (coded.x_hat - faces).square().mean(dim=(1, 2, 3))
        logits, distances, clean_loss = self._classified(coded.x_hat, faces, votes, clean)
        cross_entropy = cross_entropies(logits, votes)
        bits = coded.rounded_bits if self.config.rounded_rate else coded.bits
        share = balance(self.lmbda.weight, self.config.balance)[rates]
        loss = (
            share
            * (
                self.lmbda.weight[rates] * bits
                + self.config.distortion * 100 * mse
                + self.config.features * distances
                + self.config.cross_entropy * cross_entropy
                + self._said_by_latents(coded.y_hat, votes)
            )
        ).mean() + clean_loss
        right = logits.argmax(dim=1) == votes.argmax(dim=1)
        parts = {
            "mse": mse.mean(),
            "features": distances.mean(),
            "cross_entropy": cross_entropy.mean(),
            **by_rate("bytes", coded.rounded_bits / 8 * weights, rates, self.codec.rates),
            **by_rate("accuracy", right * weights, rates, self.codec.rates),
        }
        return loss, {name: part.detach() for name, part in parts.items()}

    def _said_by_latents(self, y_hat: Tensor, votes: Tensor) -> Tensor:
        """The loss of what the head reads in the latents (N,), 0 without one."""
        if self.head is None:
            return votes.new_zeros(len(votes))
        return self.config.latents * cross_entropies(self.head(y_hat), votes)

    def _classified(
        self, x_hat: Tensor, faces: Tensor, votes: Tensor, clean: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of x_hat, feature distances (N,), and the loss of the faces learnt clean."""
        n = len(x_hat)
        last = self.config.feature_stages
        with torch.no_grad():
            meant = self.original.features(faces)[-last:]
        learns_clean = self.train_classifier and bool(clean.any())
        seen = torch.cat([x_hat, faces[clean]]) if learns_clean else x_hat
        made = self.classifier.features(seen)
        logits = self.classifier.classify(made)
        made = made[-last:]
        distances = feature_distance([stage[:n] for stage in made], meant)
        if not learns_clean:
            return logits, distances, x_hat.new_zeros(())
        held = feature_distance([stage[n:] for stage in made], [stage[clean] for stage in meant])
        clean_loss = (
            self.config.clean_weight
            * float(clean.float().mean())
            * (
                self.config.features * held.mean()
                + self.config.cross_entropy * soft_cross_entropy(logits[n:], votes[clean])
            )
        )
        return logits[:n], distances, clean_loss

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Move the weight of the rate towards the targets."""
        rates = range(self.codec.rates)
        if self.config.target_bytes:
            face_bytes = self.lmbda.average(torch.tensor([figures[f"bytes_{r}"] for r in rates]))
            target = torch.tensor(self.config.target_bytes)
            self.lmbda.move(torch.log(face_bytes / target), progress)
        elif self.config.target_accuracy:
            right = self.lmbda.average(torch.tensor([figures[f"accuracy_{r}"] for r in rates]))
            self.lmbda.move(right - torch.tensor(self.config.target_accuracy), progress)
        lmbdas = {f"lmbda_{r}": float(self.lmbda.weight[r]) for r in rates}
        return {"psnr_db": -10 * math.log10(figures["mse"]), **lmbdas}

    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Accuracy, ideal bytes and PSNR at every rate; accuracy on uncompressed faces."""
        codec = model["codec"]  # type: ignore[index]  # a ModuleDict, as built above
        classifier = self.classifier
        if self.train_classifier:
            classifier = model["classifier"]  # type: ignore[index]
        sums: Figures = defaultdict(float)
        for x, m in in_parts(valid, device_of(model)):
            for rate in range(self.codec.rates):
                coded = codec.estimate(x, rate)
                x_hat = coded.x_hat.clamp(0, 1)
                sums[f"accuracy_{rate}"] += int((classifier(x_hat).argmax(dim=1) == m).sum())
                sums[f"bytes_{rate}"] += float(coded.bits.sum()) / 8
                sums[f"psnr_db_{rate}"] += psnr_sum(x_hat, x)
            hits = int((classifier(x).argmax(dim=1) == m).sum())
            sums["accuracy_uncompressed"] += hits
        return {name: total / len(valid) for name, total in sums.items()}


def feature_distance(made: list[Tensor], meant: list[Tensor]) -> Tensor:
    """For each face (N,), the mean over the stages of the squared difference over meant's power."""
    distances = [
        (a.float() - b.float()).square().flatten(1).mean(dim=1)
        / b.float().square().flatten(1).mean(dim=1).clamp_min(1e-6)
        for a, b in zip(made, meant, strict=True)
    ]
    return torch.stack(distances).mean(dim=0)
