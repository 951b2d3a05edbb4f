"""Tensors from files of strangers: memory-mapped, never unpickled, checked.

1. `read_tensors` tells the container by its first bytes (safetensors, npz, torch), not by its name.
2. safetensors, npz members and torch storages that are not compressed are memory-mapped copy-on-write: torch
   wants a writable array, and the file must stay as it is.
3. Sizes and checksums of every part are checked; safetensors has no checksum.
4. Whatever a damaged file makes a library raise becomes an InputError that names the file.

A state dict's pickle says which storages there are and how each tensor looks at one.  The unpickler here
builds only that description: it calls nothing that the file names, knows the few names that a dict of plain
tensors needs, and refuses all others by name.  The storages are then mapped from the file, and every tensor
must lie inside its own (`torch.load(mmap=True)` does not look).  Two containers: a zip (`data.pkl`,
`data/<key>`), and the older stream of pickles followed by the storages.
"""

import io
import json
import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from saematch.errors import InputError, SaematchError, UnsupportedError
from saematch.sae import check_finite
from saematch.text import first_line

Container = Literal["safetensors", "npz", "torch"]

MAX_JSON_BYTES = 16 << 20
"""A config larger than this is not a config."""

MAX_NPY_HEADER_BYTES = 1 << 14

MAX_MEMBERS = 10_000
"""More members than any checkpoint has."""

MAX_EXPANSION = 100
"""Compressed weights are at most a few times their size in the file; a zip bomb is a thousand times."""

SMALL_BYTES = 1 << 24
"""What compressed members may always be: a tiny file of zeros is no bomb."""

MAX_PICKLE_BYTES = 4 << 20
"""A pickle larger than this describes more than the tensors of an SAE."""

MAX_DIMENSIONS = 8

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
    container, archive = _opened(path)
    with _whole(path, container):
        if container == "safetensors":
            tensors = _read_safetensors(path)
        elif container == "npz" and archive is not None:
            names = {name.removesuffix(".npy"): name for name in archive.names}
            tensors = {name: _array(name, archive, member) for name, member in names.items()}
        else:
            tensors = _read_state_dict(path, archive)
    for name, tensor in tensors.items():
        if tensor.dtype not in READABLE:
            raise _other_numbers(path, f"tensor '{name}' of {tensor.dtype}".replace("torch.", ""))
    return tensors


def container_of(path: Path) -> Container:
    """What kind of file the weights are in, by its bytes; InputError where it is none of them."""
    return _opened(path)[0]


def _opened(path: Path) -> "tuple[Container, Archive | None]":
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    with _whole(path, "weights"):
        with path.open("rb") as file:
            head = file.read(9)
        size = path.stat().st_size
        if not head:
            raise InputError(f"expected weights in {path}, got an empty file; fetch it again")
        if head[:2] == b"PK":
            archive = Archive(path)
            arrays = archive.names and all(name.endswith(".npy") for name in archive.names)
            return "npz" if arrays else "torch", archive
    if head[8:9] == b"{":  # after the header's length in 8 bytes
        return "safetensors", None
    if head[:1] == b"\x80":  # a pickle's
        return "torch", None
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
    for name, one in pairs:
        if len(value) != len(pairs) and repr(value[name]) != repr(one):
            raise ValueError(f"'{name}' stands twice, with different values")
    return value


@contextmanager
def _whole(path: Path, kind: str) -> Iterator[None]:
    """One error for whatever a library raises on a damaged file: that depends on where the damage is."""
    try:
        yield
    except SaematchError:
        raise
    except Exception as error:
        raise InputError(
            f"expected a whole {kind} file, got {path} that cannot be read ({first_line(error)}); "
            f"fetch it again"
        ) from error


def _other_numbers(path: Path, found: str) -> UnsupportedError:
    return UnsupportedError(
        f"expected plain tensors of 16, 32 or 64 bits in {path}, got {found}; convert it to float32"
    )


def take(
    tensors: Mapping[str, Tensor], name: str, where: str, shape: Sequence[int] | None = None
) -> Tensor:
    """The tensor called `name`: finite, and of that shape."""
    if name not in tensors:
        found = ", ".join(sorted(tensors)) or "none"
        raise InputError(f"expected tensor '{name}' in {where}, got: {found}")
    tensor = tensors[name]
    if shape is not None and tuple(tensor.shape) != tuple(shape):
        raise InputError(
            f"expected '{name}' of shape {list(shape)} in {where}, "
            f"got {list(tensor.shape)}; the checkpoint does not fit together"
        )
    check_finite(name, tensor, where)
    return tensor


# safetensors and npz -----------------------------------------------------------------------------


def safetensors_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with _whole(path, "safetensors"), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _array(name: str, archive: "Archive", member: str) -> Tensor:
    """The array in the bytes of one member, without a copy where the machine can use them as they are."""
    data = archive.read(member)
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
    body = data[start.tell() :]
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(body):
        raise archive.damaged(f"'{name}' of {list(shape)} {dtype} in {len(body)} bytes")
    array = body.view(dtype).reshape(shape, order="F" if fortran else "C")
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise _other_numbers(archive.path, f"tensor '{name}' of {dtype}") from None


class Archive:
    """A zip file whose directory has been checked; raises InputError where it does not hold.

    Of every member: the name stands once, it is neither encrypted nor compressed in a way that numpy and
    torch do not write, its bytes lie in the file and overlap no other's, its CRC-32 is right whether it is
    mapped or decompressed, and decompressing cannot make much of little.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._members: dict[str, tuple[zipfile.ZipInfo, int]] = {}
        end = expanded = 0
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            if len(members) > MAX_MEMBERS:
                raise self.damaged(f"more than {MAX_MEMBERS} members")
            for member in members:
                name, stored = member.filename, member.compress_type == zipfile.ZIP_STORED
                if not stored and member.compress_type != zipfile.ZIP_DEFLATED:
                    raise self.damaged(
                        f"'{name}' compressed by unknown method {member.compress_type}"
                    )
                if name in self._members:
                    raise self.damaged(f"member '{name}' twice")
                # Compares the local header's name and refuses encryption; the file then stands where the
                # bytes begin, which only the local header knows.
                archive.open(member).close()
                self._members[name] = member, file.tell()
                if stored and member.file_size != member.compress_size:
                    raise self.damaged(
                        f"'{name}' stored in {member.compress_size} bytes, said to be "
                        f"{member.file_size}"
                    )
                if member.header_offset < end:
                    raise self.damaged(f"'{name}' overlapping another member")
                end = file.tell() + member.compress_size
                if end > self.size:
                    raise self.damaged(f"'{name}' that ends after the file does")
                expanded += 0 if stored else member.file_size
        if expanded > max(SMALL_BYTES, MAX_EXPANSION * self.size):
            raise self.damaged(f"compressed members that say they expand to {expanded} bytes")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read(self, name: str) -> np.ndarray:
        """The member's bytes as uint8, mapped where they are stored as they are."""
        member, start = self._members[name]
        if member.compress_type == zipfile.ZIP_STORED and member.file_size:
            data = np.memmap(self.path, np.uint8, "c", start, (member.file_size,))
            if zlib.crc32(data.data) != member.CRC:
                raise self.damaged(f"'{name}' with another CRC-32 than its own")
            return data
        with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
            content = bytearray(file.read())  # checks the CRC-32
        if len(content) != member.file_size:
            raise self.damaged(f"'{name}' of {len(content)} bytes, not {member.file_size}")
        return np.frombuffer(content, np.uint8)

    def damaged(self, found: str) -> InputError:
        return InputError(
            f"expected a whole zip (npz or torch) file, got {self.path} of {self.size} bytes "
            f"with {found}; fetch it again"
        )


# State dicts -------------------------------------------------------------------------------------

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    # What newer kinds of numbers lie in; the call that rebuilds the tensor names them.
    "UntypedStorage": torch.uint8,
}  # fmt: skip


class _Named(str):
    """A global that the pickle names; never imported, never called."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: torch.dtype
    key: str
    elements: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor as the pickle describes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _RefusedError(Exception):
    """What a pickle holds beyond a dict of plain tensors."""


class _UnreadableError(_RefusedError):
    """A kind of tensor that has no canonical form."""


def _is_whole(*values: object) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 60 for value in values)


# The Python one: the compiled one allocates whatever memo index the file says.
class _Description(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    stack: list[Any]

    def find_class(self, module: str, name: str) -> _Named:
        return _Named(f"{module}.{name}")

    def persistent_load(self, pid: object) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            raise _RefusedError("a persistent id that is no storage")
        kind, key, elements = pid[1], pid[2], pid[4]
        name = kind.rpartition(".")[2] if isinstance(kind, _Named) else repr(kind)
        if len(pid) == 6 and pid[5] is not None:
            raise _RefusedError("a view of a storage")
        if name not in _DTYPES:
            raise _UnreadableError(name)
        if not (isinstance(key, str) and _is_whole(elements)):
            raise _RefusedError("a storage without key or size")
        return _Storage(_DTYPES[name], key, elements)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        called = self.stack[-1]
        if not isinstance(called, _Named) or not isinstance(arguments, tuple):
            raise _RefusedError("a call")
        self.stack[-1] = _rebuilt(called, arguments)

    def load_build(self) -> None:
        self.stack.pop()
        # A state dict's `_metadata`, which nothing here needs.
        if type(self.stack[-1]) is not OrderedDict:
            raise _RefusedError("an object with a state")

    def refuse(self) -> None:
        raise _RefusedError("an object")

    dispatch: ClassVar[Any] = {
        **pickle._Unpickler.dispatch,  # pyright: ignore[reportAttributeAccessIssue]
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        **dict.fromkeys(pickle.NEWOBJ + pickle.NEWOBJ_EX + pickle.INST + pickle.OBJ, refuse),
        **dict.fromkeys(pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.NEXT_BUFFER, refuse),
    }  # fmt: skip


def _rebuilt(name: str, arguments: tuple[Any, ...]) -> object:
    """What a call that the pickle asks for stands for."""
    if name == "collections.OrderedDict" and len(arguments) <= 1:
        return OrderedDict(*arguments)
    if name == "torch.Size" and len(arguments) == 1:
        return tuple(arguments[0])
    if name == "torch._utils._rebuild_parameter" and arguments:
        return arguments[0]
    if name == "torch._utils._rebuild_tensor_v3" and len(arguments) >= 7:
        raise _UnreadableError(arguments[6])  # its kind of numbers
    if name == "torch._utils._rebuild_tensor_v2" and len(arguments) >= 4:
        storage, offset, shape, stride = arguments[:4]
        if (
            isinstance(storage, _Storage)
            and isinstance(shape, tuple)
            and isinstance(stride, tuple)
            and len(shape) == len(stride) <= MAX_DIMENSIONS
            and _is_whole(offset, *shape, *stride)
        ):
            return _View(storage, offset, shape, stride)
        raise _RefusedError("a tensor whose shape is none")
    if name.startswith("torch._utils._rebuild_"):
        raise _UnreadableError(name.removeprefix("torch._utils._rebuild_"))
    raise _RefusedError(name)


def _read_state_dict(path: Path, archive: Archive | None) -> dict[str, Tensor]:
    """Every tensor of a state dict, mapped; `archive` is None for the older stream of pickles.

    Raises UnsupportedError for kinds of tensors that are not read (float8, complex, quantized, sparse),
    InputError for any file that holds more or less than a dict of tensors.
    """
    try:
        description, stored = _read_stream(path) if archive is None else _read_zip(archive)
    except _UnreadableError as error:
        raise _other_numbers(path, f"one of '{error}'") from error
    except _RefusedError as error:
        raise InputError(
            f"expected nothing but plain tensors in {path}, got a pickle that holds more ({error}) "
            f"and was not loaded; save its state_dict, or convert it to safetensors"
        ) from error
    if not isinstance(description, Mapping):
        raise InputError(
            f"expected a dictionary of tensors in {path}, got a {type(description).__name__}"
        )
    others = [f"{k}: {type(v).__name__}" for k, v in description.items() if type(v) is not _View]
    if others:
        raise InputError(
            f"expected nothing but tensors in {path}, got more: {', '.join(others[:5])}"
        )
    tensors = {
        str(name): _tensor(str(name), view, stored, path) for name, view in description.items()
    }
    if len(tensors) != len(description):
        raise InputError(f"expected one tensor for each name in {path}, got a name twice")
    return tensors


def _read_zip(archive: Archive) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    pickles = [n for n in archive.names if n == "data.pkl" or n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise archive.damaged(f"{len(pickles)} members 'data.pkl' instead of one")
    root = pickles[0].removesuffix("data.pkl")
    outside = [name for name in archive.names if not name.startswith(root)]
    if outside:
        raise archive.damaged(f"'{outside[0]}' outside the folder '{root}'")
    content = {name: archive.read(name) for name in archive.names}  # checks every member
    data = content[pickles[0]]
    if len(data) > MAX_PICKLE_BYTES:
        raise archive.damaged(f"a pickle of {len(data)} bytes")
    order = content.get(f"{root}byteorder")
    big_endian = order is not None and order.tobytes().strip() == b"big"

    def stored(storage: _Storage) -> np.ndarray:
        name, width = f"{root}data/{storage.key}", storage.dtype.itemsize
        if name not in content:
            raise archive.damaged(f"no member '{name}'")
        numbers = content[name]
        if big_endian and width > 1 and len(numbers) % width == 0:
            return numbers.view(f"u{width}").byteswap().view(np.uint8)
        return numbers

    return _Description(io.BytesIO(data.tobytes())).load(), stored


def _read_stream(path: Path) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    size = path.stat().st_size
    places: dict[str, tuple[int, int]] = {}
    with path.open("rb") as file:
        magic, protocol, system, description, keys = (_Description(file).load() for _ in range(5))
        if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
            raise _RefusedError("no state dict of torch.save")
        if isinstance(system, Mapping) and system.get("little_endian") is False:
            raise _RefusedError("big-endian numbers")
        views = description.values() if isinstance(description, Mapping) else ()
        widths = {v.storage.key: v.storage.dtype.itemsize for v in views if type(v) is _View}
        if not isinstance(keys, list) or {k for k in keys if isinstance(k, str)} != set(widths):
            raise _RefusedError("other storages than its tensors need")
        for key in keys:
            (elements,) = struct.unpack("<q", file.read(8))
            places[key] = (file.tell(), elements * widths[key])
            if elements < 0 or sum(places[key]) > size:
                raise EOFError(f"storage '{key}' ends after the file does")
            file.seek(sum(places[key]))
        if file.tell() != size:
            raise EOFError(f"{size - file.tell()} bytes after the last storage")

    def stored(storage: _Storage) -> np.ndarray:
        start, length = places[storage.key]
        if not length:  # which cannot be mapped
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, "c", start, (length,))

    return description, stored


def _tensor(name: str, view: _View, stored: Callable[[_Storage], np.ndarray], path: Path) -> Tensor:
    storage = view.storage
    data = stored(storage)
    size = storage.elements * storage.dtype.itemsize
    if len(data) != size:
        raise InputError(
            f"expected {size} bytes of numbers for tensor '{name}' of {path}, got {len(data)}; "
            f"fetch it again"
        )
    elements = math.prod(view.shape)
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True))
    # More elements than numbers: an expanded tensor, a gigabyte made of one number.
    if elements > storage.elements or (elements and last >= storage.elements):
        raise InputError(
            f"expected the numbers of tensor '{name}' of {path} in the file, got shape "
            f"{list(view.shape)} over {storage.elements} numbers"
        )
    if not elements:
        return torch.zeros(view.shape, dtype=storage.dtype)
    flat = torch.from_numpy(data).view(storage.dtype)
    return flat.as_strided(view.shape, view.stride, view.offset)
