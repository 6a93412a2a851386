"""Weights as darknet writes them: a header, then float32 numbers, layer by layer in the order of the .cfg file.

Header: int32 major, minor, revision; then the number of images seen, 8 bytes from version 0.2 on, 4 before. A
convolution with batch norm is beta, gamma, mean, variance, weight; without, bias and weight; a connected layer bias and
weight; a local layer bias [channels, location] and weight [location, channels, input]. Other layers hold nothing.
The file does not say which network it is for, so reading checks that every byte was used (darknet's src/parser.c).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detlab.model.backbones.weights import WeightsError

IMAGENET_CLASSES = 1000
TRANSPOSED = 1000  # from this version on darknet writes connected layers transposed
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


class Header(NamedTuple):
    """The header of a darknet file."""

    major: int
    minor: int
    revision: int
    seen: int  # images trained on

    @property
    def long(self) -> bool:
        """Whether `seen` takes 8 bytes."""
        return self.major * 10 + self.minor >= 2 and self.major < TRANSPOSED and self.minor < TRANSPOSED

    def packed(self) -> bytes:
        """The header's bytes, as darknet writes them."""
        return struct.pack("<iiiQ" if self.long else "<iiiI", *self)


class DarknetFile:
    """A file read from front to back.

    Args:
        path: the file.
        option: the config key that named it, for messages.

    Raises:
        WeightsError: the file does not exist, is too short for a header, is transposed or is cut off.
    """

    def __init__(self, path: str | Path, option: str = "model.backbone.weights") -> None:
        self.path, self.option = Path(path).expanduser(), option
        if not self.path.is_file():
            raise WeightsError(f"{option}={path} is no file; give the path of a darknet .weights or .conv.N file.")
        data = self.path.read_bytes()
        if len(data) < 16:
            raise WeightsError(f"{option}={path} has {len(data)} bytes, which is less than darknet's header.")
        major, minor, revision = struct.unpack_from("<iii", data)
        long = Header(major, minor, revision, 0).long
        start = 20 if long else 16
        if min(major, minor) < 0 or max(major, minor) > TRANSPOSED:
            raise WeightsError(
                f"{option}={path} begins with version {major}.{minor}, which is none of darknet's up to {TRANSPOSED} "
                f"(later ones store layers transposed); give a file that darknet wrote."
            )
        if len(data) < start or (len(data) - start) % 4:
            raise WeightsError(f"{option}={path} has {len(data)} bytes, no whole number of float32 behind its header.")
        seen = struct.unpack_from("<Q" if long else "<I", data, 12)[0]
        self.header = Header(major, minor, revision, seen)
        self.floats = np.frombuffer(data, dtype="<f4", offset=start)
        self.at = 0

    @property
    def left(self) -> int:
        """Numbers not read yet."""
        return len(self.floats) - self.at

    @torch.no_grad()
    def into(self, module: nn.Module) -> None:
        """Fill a module's convs, norms and connected layers, in the order of its children.

        Raises:
            WeightsError: the file has too few numbers left, or one that is not finite.
        """
        for tensor in tensors_of(module):
            if tensor.numel() > self.left:
                raise WeightsError(
                    f"{self.option}={self.path} ends after {len(self.floats)} numbers, but the network needs more; "
                    f"choose the network (and the number of classes) that the file was written for."
                )
            part = self.floats[self.at : self.at + tensor.numel()].astype(np.float32)
            if not np.isfinite(part).all():
                place = self.at + int(np.nonzero(~np.isfinite(part))[0][0])
                raise WeightsError(
                    f"{self.option}={self.path} holds a number that is not finite (place {place} of "
                    f"{len(self.floats)}); give a file that darknet wrote, or one of a training that did not diverge."
                )
            tensor.copy_(torch.from_numpy(part).view(tensor.shape))
            self.at += tensor.numel()

    def finish(self, spare: Iterable[int] = ()) -> None:
        """Check that no numbers are left, or as many as one of `spare`, sizes of known layers that are not needed.

        Raises:
            WeightsError: another amount is left.
        """
        if self.left and self.left not in spare:
            raise WeightsError(
                f"{self.option}={self.path} holds {len(self.floats)} numbers, {self.left} more than the network "
                f"takes; choose the network (and the number of classes) that the file was written for."
            )


def is_darknet_file(path: str) -> bool:
    """Whether a path has the name of a darknet file: .weights, or .conv.N for the first N layers."""
    return bool(re.search(r"\.(weights|conv\.\d+)$", path))


def fill_trunk(stages: list[nn.Module], width: int, path: str) -> None:
    """Fill a backbone from a file, which may also hold the ImageNet classifier behind it, a conv on `width` channels.

    Raises:
        WeightsError: the file is another network's.
    """
    file = DarknetFile(path)
    for stage in stages:
        file.into(stage)
    file.finish(spare=(IMAGENET_CLASSES * (width + 1),))


def tensors_of(module: nn.Module) -> list[Tensor]:
    """A module's tensors in the order in which darknet stores them.

    A conv is followed by its norm where both stand in one `nn.Sequential`.
    """
    own = getattr(module, "darknet_tensors", None)
    if own is not None:
        return own()
    if isinstance(module, nn.Conv2d | nn.Linear):
        return [module.weight] if module.bias is None else [module.bias, module.weight]
    children = list(module.children())
    found: list[Tensor] = []
    for i, child in enumerate(children):
        if isinstance(child, NORMS):
            continue
        norm = children[i + 1] if i + 1 < len(children) else None
        if isinstance(child, nn.Conv2d) and isinstance(norm, NORMS):
            found += [getattr(norm, name) for name in ("bias", "weight", "running_mean", "running_var")]
        found += tensors_of(child)
    return found


def write(path: str | Path, modules: Iterable[nn.Module], header: Header) -> None:
    """Write modules to a file in darknet's format."""
    with Path(path).open("wb") as file:
        file.write(header.packed())
        for module in modules:
            for tensor in tensors_of(module):
                file.write(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
