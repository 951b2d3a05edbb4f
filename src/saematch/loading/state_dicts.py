"""State dicts that `torch.save` wrote, without running their pickle, and the zips that they and npz files
are.

A state dict's pickle says which storages there are and how each tensor looks at one.  The unpickler
here builds only that description: it calls nothing that the file names, knows the few names that a
dict of plain tensors needs, and refuses all others by name.  The storages are then mapped from the
file, and every tensor must lie inside its own (`torch.load(mmap=True)` does not look).

Two containers: a zip (`data.pkl`, `data/<key>`), and the older stream of pickles followed by the storages.

Of every member of a zip: the name stands once, it is neither encrypted nor compressed in a way that numpy and
torch do not write, its bytes lie in the file and overlap no other's, its CRC-32 is right whether it is mapped
or decompressed, and decompressing cannot make much of little.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from saematch.errors import InputError, UnsupportedError

MAX_MEMBERS = 10_000
"""More members than any checkpoint has."""

MAX_EXPANSION = 100
"""Compressed weights are at most a few times their size in the file; a zip bomb is a thousand times."""

SMALL_BYTES = 1 << 24
"""What compressed members may always be: a tiny file of zeros is no bomb."""

_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


class Archive:
    """A zip file whose directory has been checked; raises InputError where it does not hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()[: MAX_MEMBERS + 1]
            for member in members:
                self._check_method(member)
                archive.open(member).close()  # compares the local header's name
        if len(members) > MAX_MEMBERS:
            raise self.damaged(f"more than {MAX_MEMBERS} members")
        self._members = {member.filename: member for member in members}
        if len(self._members) != len(members):
            twice = next(m for m in members if self._members[m.filename] is not m)
            raise self.damaged(f"member '{twice.filename}' twice")
        self._starts = {member.filename: self._start(member) for member in members}
        self._check_overlap(members)
        expanded = sum(m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED)
        if expanded > max(SMALL_BYTES, MAX_EXPANSION * self.size):
            raise self.damaged(f"compressed members that say they expand to {expanded} bytes")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read(self, name: str) -> np.ndarray:
        """The member's bytes as uint8: mapped copy-on-write where they are stored as they are."""
        member = self._members[name]
        if member.compress_type == zipfile.ZIP_STORED and member.file_size:
            # Copy-on-write: torch wants a writable array, and the file must stay as it is.
            start = self._starts[name]
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

    def _check_method(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        if member.flag_bits & _ENCRYPTED:
            raise self.damaged(f"'{name}' encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.damaged(f"'{name}' compressed by unknown method {member.compress_type}")

    def _start(self, member: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: its local header has lengths of its own."""
        name = member.filename
        stored = member.compress_type == zipfile.ZIP_STORED
        if stored and member.file_size != member.compress_size:
            raise self.damaged(
                f"'{name}' stored in {member.compress_size} bytes, said to be {member.file_size}"
            )
        with self.path.open("rb") as file:
            file.seek(max(0, member.header_offset))
            header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise self.damaged(f"no local header for '{name}'")
        fields = _LOCAL_HEADER.unpack(header)
        start = member.header_offset + _LOCAL_HEADER.size + fields[-2] + fields[-1]
        if start + member.compress_size > self.size:
            raise self.damaged(f"'{name}' that ends after the file does")
        return start

    def _check_overlap(self, members: list[zipfile.ZipInfo]) -> None:
        end = 0
        for member in sorted(members, key=lambda m: m.header_offset):
            if member.header_offset < end:
                raise self.damaged(f"'{member.filename}' overlapping another member")
            end = self._starts[member.filename] + member.compress_size


MAX_PICKLE_BYTES = 4 << 20
"""A pickle larger than this describes more than the tensors of an SAE."""

MAX_DIMENSIONS = 8

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    # What newer kinds of numbers lie in; the call that rebuilds the tensor names them.
    "UntypedStorage": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class _Named:
    """A global that the pickle names; never imported, never called."""

    name: str


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
        name = kind.name.rpartition(".")[2] if isinstance(kind, _Named) else repr(kind)
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
        self.stack[-1] = _rebuilt(called.name, arguments)

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
        **dict.fromkeys(
            (
                code[0]
                for code in (
                    pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ,
                    pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER,
                )
            ),
            refuse,
        ),
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
        dtype = arguments[6]
        raise _UnreadableError(dtype.name if isinstance(dtype, _Named) else "no dtype")
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


def read_state_dict(path: Path, archive: Archive | None) -> dict[str, Tensor]:
    """Every tensor of a state dict, mapped; `archive` is None for the older stream of pickles.

    Raises UnsupportedError for kinds of tensors that are not read (float8, complex, quantized, sparse),
    InputError for any file that holds more or less than a dict of tensors.
    """
    try:
        if archive is None:
            description, stored = _read_stream(path)
        else:
            description, stored = _read_zip(archive)
    except _UnreadableError as error:
        raise UnsupportedError(
            f"expected plain tensors of 16, 32 or 64 bits in {path}, got one of '{error}'; convert it to "
            f"float32"
        ) from error
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


def _described(file: io.BufferedIOBase) -> Any:
    return _Description(file).load()


def _read_zip(archive: Archive) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    pickles = [n for n in archive.names if n == "data.pkl" or n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise archive.damaged(f"{len(pickles)} members 'data.pkl' instead of one")
    root = pickles[0].removesuffix("data.pkl")
    outside = [name for name in archive.names if not name.startswith(root)]
    if outside:
        raise archive.damaged(f"'{outside[0]}' outside the folder '{root}'")
    content = {name: archive.read(name) for name in archive.names}  # checks every member
    data = content[pickles[0]].tobytes()
    if len(data) > MAX_PICKLE_BYTES:
        raise archive.damaged(f"a pickle of {len(data)} bytes")
    order = content.get(f"{root}byteorder")
    big_endian = order is not None and order.tobytes().strip() == b"big"

    def stored(storage: _Storage) -> np.ndarray:
        name = f"{root}data/{storage.key}"
        if name not in content:
            raise archive.damaged(f"no member '{name}'")
        swap = big_endian and storage.dtype.itemsize > 1
        if not swap or len(content[name]) % storage.dtype.itemsize:
            return content[name]
        return content[name].view(f"u{storage.dtype.itemsize}").byteswap().view(np.uint8)

    return _described(io.BytesIO(data)), stored


def _read_stream(path: Path) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    size = path.stat().st_size
    places: dict[str, tuple[int, int]] = {}
    with path.open("rb") as file:
        if (_described(file), _described(file)) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
            raise _RefusedError("no state dict of torch.save")
        system = _described(file)
        if isinstance(system, Mapping) and system.get("little_endian") is False:
            raise _RefusedError("big-endian numbers")
        description = _described(file)
        keys = _described(file)
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
        if not length:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, "c", start, (length,))

    return description, stored


def _tensor(name: str, view: _View, stored: Callable[[_Storage], np.ndarray], path: Path) -> Tensor:
    storage = view.storage
    data = stored(storage)
    width = storage.dtype.itemsize
    if len(data) != storage.elements * width:
        raise InputError(
            f"expected {storage.elements * width} bytes of numbers for tensor '{name}' of {path}, got "
            f"{len(data)}; fetch it again"
        )
    elements = 1
    for length in view.shape:
        elements *= length
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True))
    if elements > storage.elements or (elements and last >= storage.elements):
        raise InputError(
            f"expected the numbers of tensor '{name}' of {path} in the file, got shape "
            f"{list(view.shape)} over {storage.elements} numbers"
        )
    if not elements:
        return torch.zeros(view.shape, dtype=storage.dtype)
    flat = torch.from_numpy(data).view(storage.dtype)
    return flat.as_strided(view.shape, view.stride, view.offset)
