"""The bytes of zip members, checked before they are believed.

npz and torch files are zips.  Of every member: the name stands once, it is neither encrypted nor
compressed in a way that numpy and torch do not write, its bytes lie in the file and overlap no
other's, its CRC-32 is right whether it is mapped or decompressed, and decompressing cannot make much
of little.
"""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from saematch.errors import InputError

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
