"""What this interpreter makes of payloads, as one line of JSON: to be compared between machines.

`python -m tests.support.decoded plain|lockstep|compiled FOLDER ...`: a line for each FOLDER, which
holds tables.npz, and in payloads.json a bundle's id and payloads of it in hexadecimal digits, or in
layers.json the enhancement layers of chunks, all by those tables. Needs numpy alone, and numba to
be compiled.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks.layer_paths import Layered, answer
from benchmarks.paths import PATHS
from mien.bitstream import EncodedFace
from mien.codec import ChunkCodec
from mien.errors import BitstreamError
from mien.layers import LayersCodec
from mien.tables import CdfTables

LAYERS = "layers.json"


def decoded(folder: Path, path: str) -> dict[str, Any]:
    """How many chunks are whole or wrong, and digests: of all answers, and of all coded again."""
    tables = CdfTables.load((folder / "tables.npz").read_bytes())
    if (folder / LAYERS).is_file():
        return _layers_decoded(json.loads((folder / LAYERS).read_text()), tables, path)
    document = json.loads((folder / "payloads.json").read_text())
    codec = ChunkCodec(tables, document["bundle_id"], reader=PATHS[path])
    answers = codec.decode_chunks([bytes.fromhex(payload) for payload in document["payloads"]])
    said, coded = hashlib.sha256(), hashlib.sha256()
    for read in answers:
        said.update(_words(read).encode())
        if not isinstance(read, BitstreamError):
            coded.update(codec.encode(read))
    wrong = sum(isinstance(read, BitstreamError) for read in answers)
    return {
        "whole": len(answers) - wrong,
        "wrong": wrong,
        "answers": said.hexdigest(),
        "coded_again": coded.hexdigest(),
    }


def _layers_decoded(document: list[Any], tables: CdfTables, path: str) -> dict[str, Any]:
    said, coded, wrong = hashlib.sha256(), hashlib.sha256(), 0
    codec = LayersCodec([tables] * 2, reader=PATHS[path])
    for payload, faces, layers in document:
        layered = Layered(bytes.fromhex(payload), faces, [bytes.fromhex(one) for one in layers])
        found = answer(codec, layered)
        said.update(f"{found}\n".encode())
        wrong += isinstance(found, tuple)
        if isinstance(found, list):
            coded.update(b"".join(codec.encode(layered.payload, codec.decode(*layered))))
    return {
        "whole": len(document) - wrong,
        "wrong": wrong,
        "answers": said.hexdigest(),
        "coded_again": coded.hexdigest(),
    }


def _words(read: tuple[EncodedFace, ...] | BitstreamError) -> str:
    if isinstance(read, BitstreamError):
        return f"{read.code}: {read}\n"
    return "".join(
        f"{face.time_ms} {face.track_id} {face.box} {face.level} {face.symbols.tolist()}\n"
        for face in read
    )


if __name__ == "__main__":
    for name in sys.argv[2:]:
        said = decoded(Path(name), sys.argv[1])
        print(json.dumps({"machine": platform.machine(), **said}))
