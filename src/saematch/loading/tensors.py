"""Tensors from files of strangers: memory-mapped, never unpickled, checked.

1. `read_tensors` tells the container by its first bytes (safetensors, npz, torch), not by its name.
2. safetensors, npz members and torch storages that are not compressed are memory-mapped copy-on-write.
3. Sizes and checksums of every part are checked (`archives`, `state_dicts`); safetensors has no checksum.
4. Whatever a damaged file makes a library raise becomes an InputError that names the file.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saematch.errors import InputError, SaematchError, UnsupportedError
from saematch.loading.state_dicts import Archive, read_state_dict
from saematch.sae import check_finite

Container = Literal["safetensors", "npz", "torch"]

MAX_JSON_BYTES = 16 << 20
"""A config larger than this is not a config."""

MAX_NPY_HEADER_BYTES = 1 << 14

READABLE = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
)
"""The kinds of numbers that are read; whether a tensor may hold them is for `take` to say."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a weights file, by its stored name, memory-mapped where the file allows.

    Raises InputError for a missing, damaged or unknown file, and for a pickle that holds more than
    tensors; UnsupportedError for float8, complex and other kinds of numbers that no canonical form has.
    Nothing in a file is executed.
    """
    container = container_of(path)
    with _whole(path, container):
        if container == "safetensors":
            tensors = _read_safetensors(path)
        else:
            archive = Archive(path) if _is_zip(path) else None
            if container == "npz" and archive is not None:
                tensors = _read_npz(archive)
            else:
                tensors = read_state_dict(path, archive)
    for name, tensor in tensors.items():
        if tensor.dtype not in READABLE:
            raise UnsupportedError(
                f"expected numbers of 16, 32 or 64 bits in {path}, got tensor '{name}' of "
                f"{str(tensor.dtype).removeprefix('torch.')}; convert it to float32"
            )
    return tensors


def container_of(path: Path) -> Container:
    """What kind of file the weights are in, by its bytes; InputError where it is none of them."""
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    with _whole(path, "weights"):
        with path.open("rb") as file:
            head = file.read(9)
        size = path.stat().st_size
        if not head:
            raise InputError(f"expected weights in {path}, got an empty file; fetch it again")
        if _is_zip(path):
            names = Archive(path).names
            return "npz" if names and all(name.endswith(".npy") for name in names) else "torch"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80":
        return "torch"
    raise InputError(
        f"expected a safetensors, npz or torch weights file, got {path} of "
        f"{size} bytes that begins with {head[:8]!r}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON config; InputError where it is not one, or says one thing in two ways."""
    try:
        if not path.is_file():
            raise InputError(f"there is no config {path}")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"expected a config, got {path} of {path.stat().st_size} bytes")
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_twice)
    except (OSError, UnicodeError, ValueError, RecursionError) as error:
        raise InputError(f"expected JSON in {path}, got: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object in {path}, got a {type(value).__name__}")
    return value


def _without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        for name, one in pairs:
            if repr(value[name]) != repr(one):
                raise ValueError(f"'{name}' stands twice, with different values")
    return value


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The string metadata in a safetensors header."""
    from safetensors import safe_open

    with _whole(path, "safetensors"), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


@contextmanager
def _whole(path: Path, kind: str) -> Iterator[None]:
    """One error for whatever a library raises on a damaged file: that depends on where the damage is."""
    try:
        yield
    except SaematchError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"expected a whole {kind} file, got {path} that cannot be read ({reason[:160]}); "
            f"fetch it again"
        ) from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def take(
    tensors: Mapping[str, Tensor],
    name: str,
    where: str,
    *,
    dimensions: int | None = None,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """The tensor called `name`: finite, and with that many dimensions or that shape."""
    if name not in tensors:
        found = ", ".join(sorted(tensors)) or "none"
        raise InputError(f"expected tensor '{name}' in {where}, got: {found}")
    tensor = tensors[name]
    if dimensions is not None and tensor.ndim != dimensions:
        raise InputError(
            f"expected '{name}' with {dimensions} dimension(s) in {where}, "
            f"got shape {list(tensor.shape)}"
        )
    if shape is not None:
        check_shape(name, tensor, shape, where)
    check_finite(name, tensor, where)
    return tensor


def check_shape(name: str, tensor: Tensor, expected: Sequence[int], where: str) -> None:
    """InputError naming the tensor, the shape expected and the shape got."""
    if tuple(tensor.shape) != tuple(expected):
        raise InputError(
            f"expected '{name}' of shape {list(expected)} in {where}, "
            f"got {list(tensor.shape)}; the checkpoint does not fit together"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _read_npz(archive: Archive) -> dict[str, Tensor]:
    return {
        name.removesuffix(".npy"): _array(name.removesuffix(".npy"), archive.read(name), archive)
        for name in archive.names
    }


def _array(name: str, data: np.ndarray, archive: Archive) -> Tensor:
    """The array in the bytes of one member, without a copy where the machine can use them as they are."""
    start = io.BytesIO(data[:MAX_NPY_HEADER_BYTES].tobytes())
    version = np.lib.format.read_magic(start)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(start)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(start)
    else:
        raise archive.damaged(f"array '{name}' of unknown version {version}")
    if dtype.hasobject:
        raise archive.damaged(f"Python objects (a pickle) in '{name}', which are never loaded")
    plain = dtype.kind in "iub" or (dtype.kind == "f" and dtype.itemsize <= 8)
    if not plain or dtype.shape or dtype.newbyteorder("=") in (np.uint16, np.uint32, np.uint64):
        raise UnsupportedError(
            f"expected numbers of 16, 32 or 64 bits in {archive.path}, got tensor '{name}' of {dtype}"
        )
    size = math.prod(shape) * dtype.itemsize
    body = data[start.tell() :]
    if min(shape, default=1) < 0 or size != len(body):
        raise archive.damaged(f"'{name}' of {list(shape)} {dtype} in {len(body)} bytes")
    array = body.view(dtype).reshape(shape, order="F" if fortran else "C")
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    return torch.from_numpy(array)
