"""The networks of a bundle that is served, in ONNX Runtime: loaded, proven, warm."""

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cloud_recognizer.config import Provider
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.codec import ChunkCodec
from mien.compiled_reader import fastest_reader
from mien.errors import ConfigError, ProbeError
from mien.probe import Probe, check_payloads, golden_payloads, load_probe, probe_levels

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
        # ONNX Runtime's exceptions have no common root but Exception.
        except Exception as error:
            raise ProbeError(f"{bundle.folder / name} cannot be run: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if options.provider == "cuda" and self.provider != CUDA:
            raise ConfigError(
                f"provider is cuda, but ONNX Runtime would run {name} on {self.provider}: "
                "install mien[cloud-gpu] where a GPU and its driver are, or set provider to auto"
            )

    def __call__(self, **inputs: NDArray[np.int32]) -> NDArray[np.generic]:
        """Run inputs by their names, N of at least 1 each; the output's first axis is N."""
        faces = len(next(iter(inputs.values())))
        pieces = [
            {name: batch[start : start + MAX_BATCH_FACES] for name, batch in inputs.items()}
            for start in range(0, faces, MAX_BATCH_FACES)
        ]
        outputs = [self._session.run(None, piece)[0] for piece in pieces]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)


@dataclass(frozen=True, eq=False)
class Golden:
    """The probe as a device would send it, and what must come back.

    payloads: chunks of the bundle. probabilities: float32 (P, expressions), chunk after chunk.
    """

    payloads: tuple[bytes, ...]
    probabilities: NDArray[np.float32]

    def difference(self, found: NDArray[np.float32]) -> float:
        """The largest difference of a probability, which `PROBE_TOLERANCE` bounds.

        Raises ProbeError when it is above, or another number of probabilities has come.
        """
        if found.shape != self.probabilities.shape:
            raise ProbeError(
                f"the classifier answers {found.shape}, expected {self.probabilities.shape}"
            )
        difference = float(np.abs(found - self.probabilities).max())
        if not difference <= PROBE_TOLERANCE:  # not a number fails too
            raise ProbeError(
                f"a probability differs by {difference:.4f} from the golden probe's, "
                f"{PROBE_TOLERANCE} is allowed; was the bundle exported for another classifier?"
            )
        return difference


class ExpressionModel:
    """What one bundle needs to turn payloads into expressions and, if allowed, faces."""

    def __init__(self, bundle: Bundle, options: RuntimeOptions, limits: Limits) -> None:
        self.bundle = bundle
        self.bundle_id = bundle.bundle_id
        self.codec_id = bundle.manifest.codec_id
        self.expressions = bundle.manifest.expressions
        self.codec: ChunkCodec = bundle.codec(limits, fastest_reader)
        self._classifier = Network(bundle, "classifier.onnx", options)
        self._synthesis = (
            Network(bundle, "synthesis.onnx", options) if options.reconstruction else None
        )
        self._layers = bundle.layers(limits, fastest_reader) if options.reconstruction else None
        self.provider = self._classifier.provider
        self._log_provider(options)
        self._probe: Probe = load_probe(bundle)

    @cached_property
    def golden(self) -> Golden:
        """The probe, to be sent through the serving path; after `prove` it is known to be right."""
        symbols, probabilities = self._probe.symbols, self._probe.probabilities
        payloads = golden_payloads(self.bundle.tables, symbols, self.bundle_id)
        return Golden(payloads, probabilities)

    def classify(self, symbols: NDArray[np.int32], level: NDArray[np.int32]) -> NDArray[np.float32]:
        """Probabilities, float32 (N, expressions), of symbols int32 (N, C, H, W).

        level: the quality level of each, int32 (N,).
        """
        return self._classifier(symbols=symbols, level=level).astype(np.float32, copy=False)

    def synthesise(
        self,
        symbols: NDArray[np.int32],
        level: NDArray[np.int32],
        enhancements: Sequence[NDArray[np.int32] | None],
    ) -> NDArray[np.uint8]:
        """Grey faces, uint8 (N, height, width), of symbols as `classify` takes them.

        enhancements: of each face int32 (E, H, W), None where it has none.
        Raises RuntimeError where reconstruction is not allowed: no session was opened.
        """
        if self._synthesis is None or self._layers is None:
            raise RuntimeError("reconstruction was not allowed when the model was loaded")
        nothing = np.zeros(self._layers.shape, np.int32)
        enhancement = np.stack([nothing if e is None else e for e in enhancements])
        said = self._layers.values(enhancement)
        faces = self._synthesis(symbols=symbols, level=level, enhancement=said)
        return faces.astype(np.uint8, copy=False)[:, 0]

    def layers(
        self, payload: bytes, faces: int, layers: Sequence[bytes]
    ) -> list[NDArray[np.int32] | None]:
        """The enhancements of a chunk's faces for `synthesise`. Raises BitstreamError."""
        if self._layers is None:
            raise RuntimeError("reconstruction was not allowed when the model was loaded")
        return self._layers.decode(payload, faces, layers)

    def prove(self) -> float:
        """Run the golden probe, which warms the sessions too.

        Returns the largest difference of a probability from the probe's. Raises ProbeError when
        it is above PROBE_TOLERANCE or a payload does not decode to its symbols.
        """
        probe = self._probe
        check_payloads(self.bundle, probe, fastest_reader)
        try:
            level = probe_levels(len(probe.symbols), self.bundle.tables)
            found = self.classify(probe.symbols, level)
            largest = (MAX_BATCH_FACES, *probe.symbols.shape[1:])
            self.classify(np.resize(probe.symbols, largest), np.resize(level, largest[:1]))
            if self._layers is not None:
                nothing = np.zeros(self._layers.shape, np.int32)
                read = self.layers(b"", 1, self._layers.encode(b"", [nothing]))
                self.synthesise(probe.symbols, level, read * len(level))
        except Exception as error:  # as above
            raise ProbeError(f"{self.bundle.folder} does not run: {error}") from error
        try:
            return self.golden.difference(found)
        except ProbeError as error:
            raise ProbeError(f"{self.bundle.folder}: {error}") from error

    def _log_provider(self, options: RuntimeOptions) -> None:
        _log.info(
            "bundle %s (%s) runs on %s, its chunks are read by the %s reader",
            self.bundle_id[:12],
            self.bundle.manifest.name,
            self.provider,
            self.codec.reader.name,
        )
        built_for_cuda = CUDA in ort.get_available_providers()
        if options.provider == "auto" and built_for_cuda and self.provider != CUDA:
            _log.warning("this ONNX Runtime was built for CUDA, but no GPU could be used")


def _wanted(provider: Provider) -> list[str | tuple[str, dict[str, str]]]:
    if provider == "cpu" or CUDA not in ort.get_available_providers():
        return [CPU]
    _load_cuda()
    # TF32 rounds to 10 bits; these networks are too small to gain from it.
    return [(CUDA, {"use_tf32": "0"}), CPU]


@cache
def _load_cuda() -> None:
    """Load CUDA and cuDNN from the wheels that `cloud-gpu` brings, else those of the system.

    ONNX Runtime does not look into wheels by itself.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:  # it prints what it cannot find
        ort.preload_dlls()
    for line in filter(None, said.getvalue().splitlines()):
        _log.warning("CUDA: %s", line)


def _session_options(options: RuntimeOptions) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Spinning burns five times the CPU of the inference itself while threads are idle.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings
