"""ONNX Runtime as a small camera device wants it: one thread that sleeps when idle."""

from pathlib import Path

import onnxruntime as ort


def open_session(model: Path | bytes) -> ort.InferenceSession:
    """A CPU session of one thread, for a model file or for its verified bytes.

    Without spinning off, an idle thread burns several times the CPU of the inference itself;
    without an arena, image pyramids of many shapes do not pile up in resident memory.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
