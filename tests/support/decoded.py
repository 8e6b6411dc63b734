"""What this interpreter makes of payloads, as one line of JSON: to be compared between machines.

`python -m tests.support.decoded plain|lockstep|compiled FOLDER ...`: a line for each FOLDER, which
holds tables.npz, and in payloads.json a bundle's id and payloads of it in hexadecimal digits. Needs
numpy alone, and numba to be compiled.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks.paths import PATHS
from mien.bitstream import EncodedFace
from mien.codec import ChunkCodec
from mien.errors import BitstreamError
from mien.tables import CdfTables


def decoded(folder: Path, path: str) -> dict[str, Any]:
    """How many chunks are whole or wrong, and digests: of all answers, and of all coded again."""
    document = json.loads((folder / "payloads.json").read_text())
    tables = CdfTables.load((folder / "tables.npz").read_bytes())
    codec = ChunkCodec(tables, document["bundle_id"], reader=PATHS[path])
    answers = codec.decode_chunks([bytes.fromhex(payload) for payload in document["payloads"]])
    said, coded = hashlib.sha256(), hashlib.sha256()
    for answer in answers:
        said.update(_words(answer).encode())
        if not isinstance(answer, BitstreamError):
            coded.update(codec.encode(answer))
    wrong = sum(isinstance(answer, BitstreamError) for answer in answers)
    return {
        "whole": len(answers) - wrong,
        "wrong": wrong,
        "answers": said.hexdigest(),
        "coded_again": coded.hexdigest(),
    }


def _words(answer: tuple[EncodedFace, ...] | BitstreamError) -> str:
    if isinstance(answer, BitstreamError):
        return f"{answer.code}: {answer}\n"
    return "".join(
        f"{face.time_ms} {face.track_id} {face.box} {face.level} {face.symbols.tolist()}\n"
        for face in answer
    )


if __name__ == "__main__":
    for name in sys.argv[2:]:
        said = decoded(Path(name), sys.argv[1])
        print(json.dumps({"machine": platform.machine(), **said}))
