"""What this machine's analysis makes of a bundle's probe faces, written as .npy.

`python -m tests.support.analysed BUNDLE FILE`. Needs numpy and onnxruntime.
"""

import sys
from pathlib import Path

import numpy as np

from edge_encoder.inference import open_session
from mien.bundle import ALL_FILES, load_bundle
from mien.probe import load_probe, probe_levels
from mien.second_look import looked_at

if __name__ == "__main__":
    bundle = load_bundle(Path(sys.argv[1]), ALL_FILES)
    probe = load_probe(bundle)
    session = open_session(bundle.read("analysis.onnx"))
    # edge_encoder.analysis would need cv2, for its crops.
    y, _ = looked_at(lambda faces: session.run(["y", "doubtful"], {"face": faces}), probe.faces)
    gains = bundle.tables.gains[probe_levels(len(probe.faces), bundle.tables)]
    np.save(sys.argv[2], np.rint(y * gains[:, :, None, None]).astype(np.int32), allow_pickle=False)
