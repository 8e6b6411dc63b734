"""What every trained method does on held-out faces, in real coded bytes.

Each method becomes points (trainer.compare.points), one for each rate; a point that is there is
not measured again. Nothing is estimated: codecs write files, the files are decoded, and what comes
out is classified.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from trainer.baselines.coding import code_faces
from trainer.baselines.image_codecs import IMAGE_CODECS
from trainer.baselines.image_quality import ms_ssim_of
from trainer.compare.points import Point, point_path, write_point, write_truth
from trainer.data.faces import FaceSet
from trainer.data.layout import read_held_out
from trainer.examples import as_float
from trainer.figures import psnr_db
from trainer.fit import limited
from trainer.models.hyperprior import VariableRateHyperprior
from trainer.models.resnet import ResNet18
from trainer.study.config import StudyConfig
from trainer.study.runs import load_classifier, load_codec, seed_folder

BATCH_FACES = 128
# More container than picture, at this size: also measured without it.
BARE = ("avif",)
NOT_SEEN = np.zeros(0, dtype=np.float32)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Reader:
    """A classifier that looks at what a codec made, and the method that the pair is."""

    method: str
    classifier: nn.Module


class Mirrored(nn.Module):
    """The mean of what a classifier makes of a face and of its mirror image."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, faces: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits: Tensor = (self.classifier(faces) + self.classifier(faces.flip(3))) / 2
        return logits


def measure(config: StudyConfig) -> None:
    """Write the points of every method whose networks are in config.out."""
    faces, split = read_held_out(config.data, config.face)
    faces = limited(faces, config.max_faces)
    write_truth(config.out, faces.majority, split)
    original = load_classifier(config, config.out / "classifier.pt")
    _uncompressed(config, faces, Reader("uncompressed", original))
    _uncompressed(config, faces, Reader("uncompressed-mirrored", Mirrored(original)))
    _edge_only(config, faces)
    _image_codecs(config, faces, original)
    pretrained = config.out / "pretrain.pt"
    readers = [Reader("pretrained", original), *_adapted(config, "pretrained", "adapted")]
    _codec(config, faces, load_codec(config, pretrained), readers, config.seed)
    for seed in config.seeds:
        _tuned(config, faces, original, seed)


def _tuned(config: StudyConfig, faces: FaceSet, original: ResNet18, seed: int) -> None:
    folder = seed_folder(config, seed)
    if (folder / "finetune.json").is_file():
        codec = load_codec(config, folder / "finetune.pt")
        _codec(config, faces, codec, [Reader("finetuned", original)], seed)
    if (folder / "joint.json").is_file():
        codec = load_codec(config, folder / "joint.pt")
        both = load_classifier(config, folder / "joint.pt")
        readers = [Reader("joint", both), Reader("original-on-joint", original)]
        _codec(config, faces, codec, readers, seed)
        _uncompressed(config, faces, Reader("joint-on-uncompressed", both), seed)


def _codec(
    config: StudyConfig,
    faces: FaceSet,
    codec: VariableRateHyperprior,
    readers: list[Reader],
    seed: int,
) -> None:
    codec.freeze_tables()
    for rate in range(codec.rates):
        if _all_there(config, readers, seed, rate):
            continue
        decoded, sizes = through(codec, faces, rate)
        _write(config, faces, decoded, sizes, readers, seed, rate)


def _image_codecs(config: StudyConfig, faces: FaceSet, original: ResNet18) -> None:
    pixels = faces.pixels[:]
    for name, codec in IMAGE_CODECS.items():
        readers = [Reader(name, original), *_adapted(config, name, f"{name}-adapted")]
        for rate, quality in enumerate(codec.qualities):
            if _all_there(config, readers, config.seed, rate):
                continue
            decoded, sizes = code_faces(codec, pixels, quality)
            _write(config, faces, decoded, sizes, readers, config.seed, rate)
            if name in BARE:
                container = codec.container_bytes(codec.encode(pixels[0], quality))
                bare = [
                    Reader(r.method.replace(name, f"{name}-bare"), r.classifier) for r in readers
                ]
                _write(config, faces, decoded, sizes - container, bare, config.seed, rate)


def _adapted(config: StudyConfig, name: str, method: str) -> list[Reader]:
    """The classifier that was tuned on this codec's output, where there is one."""
    if not (config.out / f"adapt-{name}.json").is_file():
        return []
    return [Reader(method, load_classifier(config, config.out / f"adapt-{name}.pt"))]


def _uncompressed(
    config: StudyConfig, faces: FaceSet, reader: Reader, seed: int | None = None
) -> None:
    pixels = faces.pixels[:]
    sizes = np.array([_png_bytes(face) for face in pixels], dtype=np.int32)
    _write(config, faces, pixels, sizes, [reader], config.seed if seed is None else seed, 0)


def _png_bytes(face: Pixels) -> int:
    file = io.BytesIO()
    picture = Image.fromarray(face[0] if len(face) == 1 else face.transpose(1, 2, 0))
    picture.save(file, "PNG", optimize=True)
    return file.tell()


def _edge_only(config: StudyConfig, faces: FaceSet) -> None:
    if not (config.out / "edge.json").is_file():
        return
    network = load_classifier(config, config.out / "edge.pt", config.edge_width)
    said = probabilities(network, faces.pixels[:])
    sizes = np.ones(len(faces), dtype=np.int32)
    write_point(config.out, Point("edge-only", config.seed, 0, sizes, said, NOT_SEEN, NOT_SEEN))


def _write(
    config: StudyConfig,
    faces: FaceSet,
    decoded: Pixels,
    sizes: NDArray[np.int32],
    readers: list[Reader],
    seed: int,
    rate: int,
) -> None:
    pixels = faces.pixels[:]
    psnr = psnr_db(pixels, decoded).astype(np.float32)
    similarity = ms_ssim_of(pixels, decoded)
    for reader in readers:
        said = probabilities(reader.classifier, decoded)
        write_point(config.out, Point(reader.method, seed, rate, sizes, said, psnr, similarity))
        right = float((said.argmax(axis=1) == faces.majority).mean())
        print(
            f"{reader.method} seed {seed} rate {rate}: {sizes.mean():.1f} bytes, "
            f"{100 * right:.2f}%, {psnr.mean():.2f} dB",
            flush=True,
        )


def _all_there(config: StudyConfig, readers: list[Reader], seed: int, rate: int) -> bool:
    return all(point_path(config.out, reader.method, seed, rate).is_file() for reader in readers)


def through(
    codec: VariableRateHyperprior, faces: FaceSet, rate: int
) -> tuple[Pixels, NDArray[np.int32]]:
    """Faces written as files and read again: uint8 (N, C, H, W), and each file's bytes (N,)."""
    decoded, sizes = [], []
    for part in _parts(faces.pixels[:]):
        files = codec.compress(as_float(part), rate)
        x_hat = codec.decompress(files, *part.shape[-2:])
        decoded.append((x_hat * 255).round().byte().numpy())
        sizes += [len(file) for file in files]
    return np.concatenate(decoded), np.array(sizes, dtype=np.int32)


@torch.no_grad()
def probabilities(network: nn.Module, pixels: Pixels) -> NDArray[np.float32]:
    """What a classifier makes of faces uint8 (N, C, H, W): float32 (N, 8)."""
    said = [torch.softmax(network(as_float(part)), dim=1).numpy() for part in _parts(pixels)]
    return np.concatenate(said)


def _parts(pixels: Pixels) -> Iterator[Pixels]:
    for start in range(0, len(pixels), BATCH_FACES):
        yield pixels[start : start + BATCH_FACES]
