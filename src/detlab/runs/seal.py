"""The seal of a checkpoint: a hash of all that it holds, by which a changed training state is noticed before resuming.

The archive's own checksums show damage by a disk, but not a checkpoint that was loaded, changed and saved again: an
optimiser's tensor of another shape makes fused kernels read beyond it, another counter repeats or skips batches.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, uint8

from detlab.system.foreign import walk

SEAL = "seal"  # key beside the config that a checkpoint is rebuilt from


def seal_of(content: Mapping[str, Any], own: str) -> str:
    """Hash of a checkpoint's structure and values (32 hex digits), without the seal itself.

    Args:
        content: the whole checkpoint.
        own: key of the entry that holds the seal.

    Raises:
        ForeignFileError: the content is nested too deep, holds itself or too many values.
    """
    found = hashlib.blake2b(digest_size=16)
    for place, value in walk(dict(content), "The checkpoint"):
        if place != (own, SEAL):
            found.update(f"{place!r} {_told(value, place == (own,))}\n".encode("utf-8", "backslashreplace"))
    return found.hexdigest()


def _told(value: Any, holds_seal: bool) -> str:
    """A value in words; of a container only its kind and size, since its values follow."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(uint8).numpy()
        return f"tensor {value.dtype} {list(value.shape)} {zlib.crc32(data.data)}"
    if isinstance(value, dict):
        return f"map {len(value.keys() - {SEAL}) if holds_seal else len(value)}"
    if isinstance(value, list | tuple):
        return f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}"
    for kind in (bool, int, float, str):
        if isinstance(value, kind):  # also of a subclass, which a file does not keep
            return f"{kind.__name__} {kind.__repr__(value)}"
    return repr(value)
