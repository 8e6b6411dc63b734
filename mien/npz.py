"""Reading arrays out of .npz bytes that may be hostile, and writing them reproducibly.

`numpy.load` allocates what a header declares before it reads; here the declared sizes are held
against the bytes that are there, and against a limit, first. No pickle in either direction.
"""

import io
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
        KeyError,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
        SyntaxError,
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
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ManifestError(f"array {name!r} is in another .npy version than 1.0")
    shape, fortran_order, found = np.lib.format.read_array_header_1_0(stream)
    if found != dtype or len(shape) != dimensions or fortran_order or min(shape, default=0) < 0:
        raise ManifestError(
            f"array {name!r} must be {dtype} with {dimensions} dimensions in C order, "
            f"not {found} of shape {shape}"
        )
    body = data[stream.tell() :]
    if len(body) != prod(shape) * dtype.itemsize:
        raise ManifestError(f"array {name!r} declares {shape} and holds {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape)
