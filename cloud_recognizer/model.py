"""The networks of the bundles that are served, in ONNX Runtime: loaded, proven, warm."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cloud_recognizer.config import Provider
from mien.bitstream import Limits, payload_tag
from mien.bundle import Bundle, BundleRepository
from mien.codec import ChunkCodec
from mien.compiled_reader import fastest_reader
from mien.errors import ConfigError, ProbeError, WrongBundleError
from mien.probe import check_payloads, load_probe

_log = logging.getLogger(__name__)

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
MAX_BATCH_FACES: Final = 256
# Between processors and providers probabilities differ by rounding, far less than this.
PROBE_TOLERANCE: Final = 0.01


@dataclass(frozen=True)
class RuntimeOptions:
    """How ONNX Runtime is to run: where, with how many threads, and whether faces may be made."""

    provider: Provider = "auto"
    threads: int = 1
    reconstruction: bool = False


class Network:
    """One ONNX file, run in pieces of at most MAX_BATCH_FACES so that memory is bounded."""

    def __init__(self, bundle: Bundle, name: str, options: RuntimeOptions) -> None:
        try:
            self._session = ort.InferenceSession(
                bundle.read(name), _session_options(options), providers=_wanted(options.provider)
            )
            self._input = self._session.get_inputs()[0].name
        # ONNX Runtime's exceptions have no common root but Exception.
        except Exception as error:
            raise ProbeError(f"{bundle.folder / name} cannot be run: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if options.provider == "cuda" and self.provider != CUDA:
            raise ConfigError(
                f"provider is cuda, but ONNX Runtime would run {name} on {self.provider}: "
                "install mien[cloud-gpu] and the CUDA libraries, or set provider to auto"
            )

    def __call__(self, symbols: NDArray[np.int32]) -> NDArray[np.generic]:
        """Run symbols, int32 (N, C, H, W) with N of at least 1; the output's first axis is N."""
        starts = range(0, len(symbols), MAX_BATCH_FACES)
        pieces = [symbols[start : start + MAX_BATCH_FACES] for start in starts]
        outputs = [self._session.run(None, {self._input: piece})[0] for piece in pieces]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)


class ExpressionModel:
    """What one bundle needs to turn payloads into expressions and, if allowed, faces."""

    def __init__(self, bundle: Bundle, options: RuntimeOptions, limits: Limits) -> None:
        self.bundle = bundle
        self.bundle_id = bundle.bundle_id
        self.expressions = bundle.manifest.expressions
        self.codec: ChunkCodec = bundle.codec(limits, fastest_reader)
        self._classifier = Network(bundle, "classifier.onnx", options)
        self._synthesis = (
            Network(bundle, "synthesis.onnx", options) if options.reconstruction else None
        )
        self.provider = self._classifier.provider

    def classify(self, symbols: NDArray[np.int32]) -> NDArray[np.float32]:
        """Probabilities, float32 (N, expressions), of symbols int32 (N, C, H, W)."""
        return self._classifier(symbols).astype(np.float32, copy=False)

    def synthesise(self, symbols: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Grey faces, uint8 (N, height, width), of symbols int32 (N, C, H, W).

        Raises RuntimeError where reconstruction is not allowed: no session was opened.
        """
        if self._synthesis is None:
            raise RuntimeError("reconstruction was not allowed when the model was loaded")
        return self._synthesis(symbols).astype(np.uint8, copy=False)[:, 0]

    def prove(self) -> float:
        """Run the golden probe, which warms the sessions too.

        Returns the largest difference of a probability from the probe's. Raises ProbeError when
        it is above PROBE_TOLERANCE or a payload does not decode to its symbols.
        """
        probe = load_probe(self.bundle)
        check_payloads(self.bundle, probe, fastest_reader)
        try:
            found = self.classify(probe.symbols)
            self.classify(np.resize(probe.symbols, (MAX_BATCH_FACES, *probe.symbols.shape[1:])))
            if self._synthesis is not None:
                self.synthesise(probe.symbols)
        except Exception as error:  # as above
            raise ProbeError(f"{self.bundle.folder} does not run: {error}") from error
        if found.shape != probe.probabilities.shape:
            raise ProbeError(
                f"{self.bundle.folder}: the classifier answers {found.shape}, "
                f"expected {probe.probabilities.shape}"
            )
        difference = float(np.abs(found - probe.probabilities).max())
        if not difference <= PROBE_TOLERANCE:  # not a number fails too
            raise ProbeError(
                f"{self.bundle.folder}: a probability differs by {difference:.4f} from the "
                f"golden probe's, {PROBE_TOLERANCE} is allowed; was the bundle exported for "
                "another classifier?"
            )
        return difference


class Models:
    """The models of every bundle in a repository; iterates with the preferred one first."""

    def __init__(
        self, repository: BundleRepository, options: RuntimeOptions, limits: Limits
    ) -> None:
        self.limits = limits
        self._repository = repository
        self._models = {
            bundle.bundle_id: ExpressionModel(bundle, options, limits)
            for bundle in repository.bundles
        }

    def __iter__(self) -> Iterator[ExpressionModel]:
        return iter(self._models.values())

    @property
    def preferred(self) -> ExpressionModel:
        """The model to use where there is a choice."""
        return self._models[self._repository.preferred.bundle_id]

    def get(self, bundle_id: str) -> ExpressionModel:
        """The model of a bundle. Raises UnknownBundleError."""
        return self._models[self._repository.get(bundle_id).bundle_id]

    def of_payload(self, payload: bytes) -> tuple[ExpressionModel, ...]:
        """The models whose bundle may have coded a payload, at least one.

        Raises WrongBundleError where none may, TruncatedError and VersionError.
        """
        tag = payload_tag(payload)
        found = tuple(self._models[b.bundle_id] for b in self._repository.with_tag(tag))
        if not found:
            raise WrongBundleError(
                f"the payload was coded with a bundle whose id starts {tag:03x}, which is not "
                "served here; ListBundles names those that are"
            )
        return found


def load_models(bundles: Path, options: RuntimeOptions, limits: Limits) -> Models:
    """Load and verify every bundle of a folder. Raises BundleError, ConfigError for a provider."""
    models = Models(BundleRepository(bundles), options, limits)
    for model in models:
        _log.info(
            "bundle %s (%s) runs on %s, its chunks are read by the %s reader",
            model.bundle_id[:12],
            model.bundle.manifest.name,
            model.provider,
            model.codec.reader.name,
        )
        built_for_cuda = CUDA in ort.get_available_providers()
        if options.provider == "auto" and built_for_cuda and model.provider != CUDA:
            _log.warning("this ONNX Runtime was built for CUDA, but no GPU could be used")
    return models


def _wanted(provider: Provider) -> list[str | tuple[str, dict[str, str]]]:
    if provider == "cpu" or CUDA not in ort.get_available_providers():
        return [CPU]
    # TF32 rounds to 10 bits; these networks are too small to gain from it.
    return [(CUDA, {"use_tf32": "0"}), CPU]


def _session_options(options: RuntimeOptions) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Spinning burns five times the CPU of the inference itself while threads are idle.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings
