"""Tensor files: written atomically, and loaded from untrusted sources after a check of their pickle.

`weights_only=True` stops a pickle from calling arbitrary functions. It bounds neither time nor memory: a tuple that
holds the next tuple twice, forty levels deep, takes 2^40 steps to hash; a tensor of stride 0 asks for more memory than
the machine has; a compressed part can grow a thousandfold. `detlab.tensors.pickles` checks the pickle; this module sees
to it that torch reads the very pickle that was checked, since torch and Python may read two archives in one file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from detlab.system.files import write_whole
from detlab.system.foreign import open_regular, walk
from detlab.tensors.pickles import MAX_PICKLE, PickleError, check_pickle

MAX_PARTS = 50_000  # of an archive: one for each tensor; a ResNet-152 with its optimiser has 2,000
LEGACY_PICKLES = 5  # in a file of torch before 1.6: magic number, version, system, content, names of the tensors' data
ZIP = b"PK\3\4"  # how torch.load tells an archive from a file of torch before 1.6
END = struct.Struct("<4s4H2LH")  # the end of an archive: mark, disks, parts, size and offset of its directory, comment
END64, LOCATOR64 = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")  # the same of large ones, before it


class ArchiveError(ValueError):
    """A file that is unsafe to pass to `torch.load`; the message says why."""


def save_tensors(path: Path, content: Any, *, previous: Path | None = None) -> None:
    """`torch.save` atomically, tensor by tensor: the file is never in memory as a whole. See `write_whole`.

    Raises:
        OSError: the disk is full or gone.
    """
    write_whole(path, lambda file: torch.save(content, cast(BinaryIO, file)), previous=previous)


def load_tensors(path: Path) -> Any:
    """Load a file of `torch.save` onto the CPU: tensors and plain containers, with weights_only=True.

    Raises:
        ArchiveError, ForeignFileError, or an error of torch.load: the file is of another kind, damaged or malicious.
    """
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            if file.read(len(ZIP)) == ZIP:
                _check_zip(file, size)
            else:
                file.seek(0)
                for _ in range(LEGACY_PICKLES):
                    check_pickle(file)
        except PickleError as error:
            raise ArchiveError(str(error)) from error
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    for _, value in walk(content, str(path)):
        attributes = sorted(getattr(value, "__dict__", {}).keys() - {"_metadata"})  # of a module's state_dict
        if attributes:
            raise ArchiveError(f"it gives a {type(value).__name__} an attribute of its own, {attributes[0]}")
        if isinstance(value, torch.Tensor) and value.numel() * value.element_size() > size:
            raise ArchiveError(f"it holds a tensor of {list(value.shape)}, more than the file has bytes")
    return content


def not_finite(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of tensors that hold NaN, an infinity in float32 or a variance below 0, as after a diverged training."""
    usual = (torch.float32, torch.float16, torch.bfloat16)
    floats = {name: value for name, value in state.items() if value.is_floating_point() and not value.is_meta}
    as_used = {name: value if value.dtype in usual else value.float() for name, value in floats.items()}
    least = {name: 0.0 if name.endswith("running_var") else -torch.inf for name in as_used}
    return [name for name, value in as_used.items() if not bool((torch.isfinite(value) & (value >= least[name])).all())]


def _check_zip(file: BinaryIO, size: int) -> None:
    """Check a torch zip archive: its pickle, and its checksums, which torch writes but never verifies.

    Raises:
        ArchiveError: a part is compressed, overlaps another, or has a name that torch.save never gives.
        PickleError: its pickle is unsafe.
        zipfile.BadZipFile: a part differs from its checksum; the message names it.
    """
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ArchiveError("its parts are compressed, which torch never does")
        if sum(part.file_size for part in parts) > size:
            raise ArchiveError("its parts overlap")
        names = [part.orig_filename.partition("/")[2] for part in parts]
        for name in names:  # torch finds parts in capitals too, and might so read one that is not checked, or one twice
            if name != name.lower() or (name.startswith("data/") and not name[5:].isdecimal()):
                raise ArchiveError(f"it has a part {name[:60]!r}, which torch never writes")
        if len(set(names)) != len(names):
            raise ArchiveError("it has two parts of one name")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"bytes of {damaged} have changed since they were written")
        for part, name in zip(parts, names, strict=True):
            if name == "data.pkl":
                if part.file_size > MAX_PICKLE:
                    raise ArchiveError(f"its pickle is larger than {MAX_PICKLE:,} bytes")
                check_pickle(io.BytesIO(archive.read(part)))


def _check_directory(file: BinaryIO, size: int) -> None:
    """Check that an archive's directory lies where its end says: Python looks before the end, torch where it says.

    Raises:
        ArchiveError: there is no such directory, or it lists too many parts.
    """
    before = LOCATOR64.size + END64.size
    file.seek(max(0, size - END.size - before))
    tail = file.read()
    if len(tail) < END.size:
        raise ArchiveError("it is no whole archive")
    mark, *_, parts, length, offset, comment = END.unpack(tail[-END.size :])
    end = size - END.size
    if len(tail) == END.size + before and tail[END64.size :].startswith(b"PK\6\7"):
        end -= before
        mark64, *_, parts, length, offset = END64.unpack(tail[: END64.size])
        if mark64 != b"PK\6\6" or LOCATOR64.unpack(tail[END64.size : before])[2] != end:
            raise ArchiveError("its directory is not where it says")
    if mark != b"PK\5\6" or comment:
        raise ArchiveError("it is no whole archive")
    if offset + length != end:
        raise ArchiveError("its directory is not where it says")
    if parts > MAX_PARTS or length > MAX_PICKLE:
        raise ArchiveError(f"it has more than {MAX_PARTS:,} parts")
