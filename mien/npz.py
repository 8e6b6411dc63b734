"""Reading arrays out of .npz bytes that may be hostile, and writing them reproducibly.

`numpy.load` evaluates headers and allocates what they declare before it reads; here the form is
fixed, and the declared sizes are held against a limit and the bytes that are there, first.
No pickle in either direction.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mien.errors import ManifestError

_MAX_BYTES = 64 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PREFIX_BYTES = 10
# As numpy writes it; its own reader evaluates the header as Python.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<size>..)"
    rb"\{'descr': '(?P<descr>[<|][a-z]\d{1,2})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(\d{1,9}, ?)*(\d{1,9})?)\), \} *\n",
    re.DOTALL,
)


def read_npz(
    data: bytes, arrays: Mapping[str, tuple[DTypeLike, int]], max_bytes: int = _MAX_BYTES
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an .npz file.

    arrays: name -> (dtype, number of dimensions), exactly what the file must hold.
    max_bytes: largest sum of the uncompressed sizes.
    Raises ManifestError when the file is anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if set(entries) != set(arrays):
                raise ManifestError(
                    f"the .npz file must hold the arrays {sorted(arrays)}, not {sorted(entries)}"
                )
            declared = sum(info.file_size for info in entries.values())
            if declared > max_bytes:
                raise ManifestError(f"the .npz file unpacks to {declared} bytes, over {max_bytes}")
            return {
                name: _read_array(name, archive.read(entries[name]), np.dtype(dtype), dimensions)
                for name, (dtype, dimensions) in arrays.items()
            }
    except (
        ValueError,
        EOFError,
        OSError,
        RuntimeError,  # an encrypted member
        NotImplementedError,  # another compression
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ManifestError(f"not a readable .npz file: {error}") from error


def write_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the bytes of an .npz file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):
            array = io.BytesIO()
            np.lib.format.write_array(
                array, np.ascontiguousarray(arrays[name]), (1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, array.getvalue(), compresslevel=9)
    return buffer.getvalue()


def _read_array(
    name: str, data: bytes, dtype: np.dtype[np.generic], dimensions: int
) -> NDArray[np.generic]:
    header = _HEADER.match(data)
    if header is None:
        raise ManifestError(f"array {name!r} is not an .npy array of version 1.0 in C order")
    shape = tuple(int(size) for size in header["shape"].decode().split(",") if size)
    found = header["descr"].decode()
    if found != dtype.str or len(shape) != dimensions:
        raise ManifestError(
            f"array {name!r} must be {dtype.str} with {dimensions} dimensions, "
            f"not {found} of shape {shape}"
        )
    body = data[_PREFIX_BYTES + int.from_bytes(header["size"], "little") :]
    if len(body) != prod(shape) * dtype.itemsize:
        raise ManifestError(f"array {name!r} declares {shape} and holds {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape)
