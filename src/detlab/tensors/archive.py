"""Tensor files: written atomically, and loaded from untrusted sources after a check of their pickle.

`weights_only=True` stops a pickle from calling arbitrary functions. It bounds neither time nor memory: a tuple that
holds the next tuple twice, forty levels deep, takes 2^40 steps to hash; `bytearray(10**12)` or a tensor of stride 0
asks for more memory than the machine has; a compressed part can grow a thousandfold.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from detlab.system.files import write_whole
from detlab.system.foreign import open_regular, walk

MAX_PICKLE = 64 << 20  # bytes without the tensors' data; a ResNet-152 with its optimiser needs about 1 million
MAX_TUPLES = 16  # nesting depth of tuples; torch's own files reach 3
CALLED = re.compile(  # the globals that a pickle of tensors, sizes and plain containers needs
    r"collections (OrderedDict|Counter)|(__)?builtins?(__)? set|_codecs encode|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_(tensor(_v2|_v3)?|parameter(_with_state)?)|torch\._tensor _rebuild_from_type_v2"
    r"|torch\.nn\.parameter Parameter|torch (Size|device|[A-Z][A-Za-z0-9]*Storage)"
    r"|torch (u?int\d+|float\d+|bfloat16|bool|complex\d+|float8_\w+)"
)
LEGACY_PICKLES = 4  # in a file of torch before 1.6: magic number, version, system, content


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
        if zipfile.is_zipfile(file):
            _check_zip(file, size)
        else:
            file.seek(0)
            for _ in range(LEGACY_PICKLES):
                _check_pickle(file)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    for _, value in walk(content, str(path)):
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
        ArchiveError: a part is compressed, overlaps another, or is an unsafe pickle.
        zipfile.BadZipFile: a part differs from its checksum; the message names it.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ArchiveError("its parts are compressed, which torch never does")
        if sum(part.file_size for part in parts) > size:
            raise ArchiveError("its parts overlap")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"bytes of {damaged} have changed since they were written")
        for part in parts:
            if part.filename.rpartition("/")[2] == "data.pkl":
                if part.file_size > MAX_PICKLE:
                    raise ArchiveError(f"its pickle is larger than {MAX_PICKLE:,} bytes")
                _check_pickle(io.BytesIO(archive.read(part)))


def _check_pickle(file: BinaryIO) -> None:
    """Walk through a pickle's opcodes up to its end without executing them.

    Raises:
        ArchiveError: it imports a global outside CALLED, nests tuples too deep, or is no pickle.
    """
    try:
        _follow(file)
    except ArchiveError:
        raise
    except Exception as error:  # pickletools and an empty stack raise many kinds
        raise ArchiveError(f"it is no pickle ({type(error).__name__})") from error


def _follow(file: BinaryIO) -> None:
    """Simulate the pickle's stack; an entry is an object's depth of nested tuples, or None for a mark."""
    stack: list[int | None] = []
    memo: dict[int, int | None] = {}
    start = file.tell()

    def pop_to_mark() -> list[int]:
        items = []
        while (item := stack.pop()) is not None:
            items.append(item)
        return items

    for op, argument, position in pickletools.genops(file):
        name, word = op.name, str(argument)
        if position is not None and position - start > MAX_PICKLE:
            raise ArchiveError(f"its pickle is larger than {MAX_PICKLE:,} bytes")
        if name == "GLOBAL" and not CALLED.fullmatch(word):
            raise ArchiveError(f"it calls {word.replace(' ', '.')}, which no checkpoint needs")
        if name == "MARK":
            stack.append(None)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(word)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(word)])
        elif name.startswith("TUPLE") or name == "EMPTY_TUPLE":
            count = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}.get(name)
            items = pop_to_mark() if count is None else [stack.pop() or 0 for _ in range(count)]
            depth = 1 + max(items, default=0)
            if depth > MAX_TUPLES:
                raise ArchiveError(f"it holds tuples within tuples, more than {MAX_TUPLES} deep")
            stack.append(depth)
        elif name != "STOP":
            _apply(op, stack, pop_to_mark)


def _apply(op: pickletools.OpcodeInfo, stack: list[int | None], pop_to_mark: Any) -> None:
    """Apply the effect of any other opcode on the stack, as pickletools describes it."""
    before = op.stack_before
    if pickletools.stackslice in before:
        pop_to_mark()
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        stack.pop()
    stack.extend(0 for _ in op.stack_after)
