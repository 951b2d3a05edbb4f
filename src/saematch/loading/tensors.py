"""Tensors from files of strangers: memory-mapped, never unpickled, checked.

1. `read_tensors` tells the container by its bytes (safetensors, npz, torch zip), not by its name.
2. safetensors and stored npz members are memory-mapped copy-on-write; torch files are mapped too.
3. `check_finite` walks a tensor in blocks, so that a mapped tensor is never copied whole.
"""

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saematch.errors import InputError

Container = Literal["safetensors", "npz", "torch"]

BLOCK_ELEMENTS = 1 << 22
"""Elements looked at in one go: 16 MB of float32."""

MAX_JSON_BYTES = 16 << 20
"""A config larger than this is not a config."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a weights file, by its stored name, memory-mapped where the file allows.

    Raises InputError for a missing, truncated or unknown file, and for a pickle that holds more
    than tensors.  Nothing is unpickled outside torch's `weights_only` unpickler.
    """
    return _READERS[container_of(path)](path)


def container_of(path: Path) -> Container:
    """What kind of file the weights are in, by its bytes; InputError where it is none of them."""
    if not path.is_file():
        raise InputError(f"needed the weights file {path}, found nothing there")
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise InputError(f"needed weights in {path}, found an empty file; fetch it again")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return "npz" if names and all(name.endswith(".npy") for name in names) else "torch"
    if head[:2] == b"PK":
        raise InputError(
            f"needed a whole zip (npz or torch) file, found {path} cut short at "
            f"{path.stat().st_size} bytes; fetch it again"
        )
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80":
        return "torch"
    raise InputError(
        f"needed a safetensors, npz or torch weights file, found {path} of "
        f"{path.stat().st_size} bytes that begins with {head[:8]!r}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON config; InputError where it is not one."""
    if not path.is_file():
        raise InputError(f"needed the config {path}, found nothing there")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"needed a config, found {path} of {path.stat().st_size} bytes")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"needed JSON in {path}, found: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"needed a JSON object in {path}, found a {type(value).__name__}")
    return value


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The string metadata in a safetensors header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"needed a whole safetensors file, found {path}: {error}") from error


def check_finite(name: str, tensor: Tensor, where: str) -> None:
    """InputError naming `name` and the first index that holds NaN or Inf."""
    if not tensor.dtype.is_floating_point:
        raise InputError(f"needed floating-point '{name}' in {where}, found {tensor.dtype}")
    if tensor.ndim == 0:
        blocks: Sequence[Tensor] = (tensor.reshape(1),)
        rows = 1
    else:
        # A transposed view is walked along its contiguous axis, or every block reads every page.
        rows = max(1, BLOCK_ELEMENTS // max(1, tensor[0].numel() if len(tensor) else 1))
        blocks = tensor.split(rows)
    for number, block in enumerate(blocks):
        finite = torch.isfinite(block)
        if not bool(finite.all()):
            index = (~finite).nonzero()[0].tolist()
            value = float(block[tuple(index)])
            index[0] += number * rows
            raise InputError(
                f"needed finite numbers in tensor '{name}' of {where}, found {value} at {index}"
            )


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
        raise InputError(f"needed tensor '{name}' in {where}, found: {found}")
    tensor = tensors[name]
    if dimensions is not None and tensor.ndim != dimensions:
        raise InputError(
            f"needed '{name}' with {dimensions} dimension(s) in {where}, "
            f"found shape {list(tensor.shape)}"
        )
    if shape is not None:
        check_shape(name, tensor, shape, where)
    check_finite(name, tensor, where)
    return tensor


def check_shape(name: str, tensor: Tensor, expected: Sequence[int], where: str) -> None:
    """InputError naming the tensor, the shape needed and the shape found."""
    if tuple(tensor.shape) != tuple(expected):
        raise InputError(
            f"needed '{name}' of shape {list(expected)} in {where}, "
            f"found {list(tensor.shape)}; the checkpoint does not fit together"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(
            f"needed a whole safetensors file, found {path} of {path.stat().st_size} bytes: "
            f"{error}; fetch it again"
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    import pickle

    try:
        try:
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            # Only the zip form of torch.save can be mapped.
            if "mmap" not in str(error):
                raise
            value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"needed nothing but tensors in {path}, found a pickle that holds more and was not "
            f"loaded ({reason[:120]}); save its state_dict, or convert it to safetensors"
        ) from error
    except Exception as error:
        # What torch raises on a damaged file depends on where the damage is.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"needed a whole torch file, found {path} of {path.stat().st_size} bytes that cannot "
            f"be read ({reason[:160]}); fetch it again"
        ) from error
    if not isinstance(value, Mapping):
        raise InputError(
            f"needed a dictionary of tensors in {path}, found a {type(value).__name__}"
        )
    others = [
        f"{key}: {type(item).__name__}"
        for key, item in value.items()
        if not isinstance(item, Tensor)
    ]
    if others:
        raise InputError(f"needed nothing but tensors in {path}, found {', '.join(others[:5])}")
    return {str(key): item.detach() for key, item in value.items()}


def _read_npz(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                tensors[name] = _read_npz_member(path, archive, member)
    except (zipfile.BadZipFile, EOFError, struct.error, ValueError, OSError) as error:
        raise InputError(
            f"needed a whole npz file of plain arrays, found {path} of {path.stat().st_size} "
            f"bytes: {error}; fetch it again"
        ) from error
    return tensors


def _read_npz_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    """One array: mapped where it is stored as it is (np.savez), read where it is compressed."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"array format {version} in '{member.filename}' is not known")
        if dtype.hasobject:
            raise ValueError(
                f"'{member.filename}' holds Python objects (a pickle), which are never loaded"
            )
        if dtype.kind not in "fiub":
            raise ValueError(f"'{member.filename}' holds {dtype}, not numbers")
        header = file.tell()
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if header + size != member.file_size:
            raise ValueError(
                f"'{member.filename}' says {size} bytes of {list(shape)} {dtype} and holds "
                f"{member.file_size - header}"
            )
        if member.compress_type != zipfile.ZIP_STORED or size == 0:
            data = bytearray(file.read())
            array = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
            return _to_torch(array)
    start = _data_offset(path, member) + header
    if start + size > path.stat().st_size:
        raise EOFError(f"'{member.filename}' ends after the file does")
    # Copy-on-write: torch wants a writable array, and the file must stay as it is.
    return _to_torch(np.memmap(path, dtype, "c", start, shape, order="F" if fortran else "C"))


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: its local header has lengths of its own."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no local header for '{member.filename}'")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return member.header_offset + 30 + name_length + extra_length


def _to_torch(array: np.ndarray) -> Tensor:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


_READERS = {"safetensors": _read_safetensors, "npz": _read_npz, "torch": _read_torch}
