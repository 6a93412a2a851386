"""Files of tensors that torch.load would not survive, and those that it reads."""

from __future__ import annotations

import errno
import io
import pickletools
import time
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from detlab.model.backbones import ResNet
from detlab.system.files import Sink
from detlab.system.foreign import ForeignFileError
from detlab.tensors import pickles
from detlab.tensors.archive import ArchiveError, load_tensors, not_finite, save_tensors


def rewritten(path: Path, pickle: bytes = b"", compression: int = zipfile.ZIP_STORED) -> Path:
    """A file of torch.save with another pickle, or with its parts compressed."""
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, pickle if pickle and name.endswith("data.pkl") else content)
    return path


def doubled(times: int) -> bytes:
    """{t: 1} with t = (s, s), s = (r, r), ...: its hash takes 2^times steps."""
    steps = b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(times))
    return b"\x80\x02})q\x00" + steps + b"K\x01s."


def called(name: str, argument: bytes) -> bytes:
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + argument + b"\x85R."


def wide() -> bytes:
    """A tuple of 250 times a tuple of 250 times ..., four deep: memo 3 weighs four billion."""
    tuples = (b"(" + item * 250 + b"tq" + bytes([i]) for i, item in enumerate((b"N", b"h\0", b"h\1", b"h\2")))
    return b"".join(tuples)


WIDE = wide()
LONG = (100_000).to_bytes(4, "little") + b"x" * 100_000
HUGE = b"\x8a\x06" + (10**12).to_bytes(6, "little")
HARMFUL = [
    (doubled(40), "tuples within tuples"),
    (called("builtins bytearray", HUGE), "calls builtins.bytearray"),
    (called("torch Tensor", HUGE), "calls torch.Tensor"),
    (called("torch.storage UntypedStorage", HUGE), "calls torch.storage.UntypedStorage"),
    (called("posix system", b"X\x02\x00\x00\x00ls"), "calls posix.system"),
    (called("builtins eval", b"X\x01\x00\x00\x001"), "calls builtins.eval"),
    (b"\x80\x02h\x07.", "no pickle"),
    (b"\x80\x02R.", "no pickle"),
    (b"\x80\x02(((((((", "no pickle"),
    (b"nonsense", "no pickle"),
    (b"\x80\x02" + WIDE + b"}h\x03K\x01s.", "steps of hashing"),
    (b"\x80\x02" + WIDE + b"(h\x03tQ.", "steps of hashing"),
    (b"\x80\x02c_codecs\nencode\nq\x00X" + LONG + b"\x85q\x01" + b"h\x00h\x01R" * 1000 + b".", "steps of hashing"),
    (b"\x80\x02]q\x00\x85](K\x01eh\x00K\x01a.", "lies in another one"),
    (b"\x80\x02\x8c\x01x.", "no instruction SHORT_BINUNICODE"),
    (called("torch._tensor _rebuild_from_type_v2", b"K\x01"), "calls torch._tensor._rebuild_from_type_v2"),
    (b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x01sb.", "an attribute of its own, items"),
]


@pytest.mark.parametrize(("pickle", "message"), HARMFUL, ids=range(len(HARMFUL)))
def test_pickles_are_followed_before_they_are_obeyed(tmp_path: Path, pickle: bytes, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(ArchiveError, match=message):
        load_tensors(rewritten(tmp_path / "a.pt", pickle))
    assert time.monotonic() - start < 5


LONGER = [
    (called("collections OrderedDict", b"](" + b"K\x01" * 10 + b"e"), "more than 9 keys that are no text"),
    (b"\x80\x02}(" + b"K\x01K\x01" * 10 + b"u.", "more than 9 keys that are no text"),
    (b"\x80\x02" + b"N" * 61 + b".", "more than 60 instructions"),
]


@pytest.mark.parametrize(("pickle", "message"), LONGER, ids=range(len(LONGER)))
def test_keys_and_instructions_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickle: bytes, message: str
) -> None:
    """Numbers may be chosen to have one hash, so that n of them take n^2 steps."""
    monkeypatch.setattr(pickles, "MAX_KEYS", 9)
    monkeypatch.setattr(pickles, "MAX_OPCODES", 60)
    with pytest.raises(ArchiveError, match=message):
        load_tensors(rewritten(tmp_path / "a.pt", pickle))


def before_archives(path: Path, content: bytes, names: bytes) -> Path:
    """A file of torch before 1.6: three pickles about torch, the content, and the names of the tensors' data."""
    torch.save({}, path, _use_new_zipfile_serialization=False)
    file = io.BytesIO(path.read_bytes())
    for _ in range(3):
        list(pickletools.genops(file))
    path.write_bytes(file.getvalue()[: file.tell()] + content + names)
    return path


@pytest.mark.parametrize("content", [b"\x80\x02}.", doubled(40)])
def test_every_pickle_of_an_old_file_is_followed(tmp_path: Path, content: bytes) -> None:
    """The last of five as well, and though an archive follows, by which zipfile would take the file for one."""
    file = before_archives(tmp_path / "a.pt", content, doubled(40))
    file.write_bytes(file.read_bytes() + rewritten(tmp_path / "b.pt").read_bytes())
    with pytest.raises(ArchiveError, match="tuples within tuples"):
        load_tensors(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_torch_reads_what_was_checked(tmp_path: Path) -> None:
    """torch finds DATA.PKL as data.pkl, data/a as data/A, and the directory where the end says, other than Python."""
    file = tmp_path / "a.pt"
    for name in ("DATA.PKL", "data/a", "DATA/0", "version"):
        rewritten(file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(f"a/{name}", "3")
        with pytest.raises(ArchiveError, match="which torch never writes" if name != "version" else "two parts"):
            load_tensors(file)
    whole = rewritten(file).read_bytes()
    for content, message in (
        (whole + whole, "directory is not where"),
        (whole + b"\0", "no whole archive"),
        (whole[:30], "no whole archive"),
    ):
        file.write_bytes(content)
        with pytest.raises(ArchiveError, match=message):
            load_tensors(file)


def test_too_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detlab.tensors.archive.MAX_PARTS", 2)
    with pytest.raises(ArchiveError, match="more than 2 parts"):
        load_tensors(rewritten(tmp_path / "a.pt"))


def test_sixteen_tuples_are_still_read(tmp_path: Path) -> None:
    """The same pickle, harmless: what is refused above is its depth."""
    assert list(load_tensors(rewritten(tmp_path / "a.pt", doubled(10))).values()) == [1]


def test_parts_that_grow(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="compressed"):
        load_tensors(rewritten(tmp_path / "a.pt", compression=zipfile.ZIP_DEFLATED))


def test_tensors_larger_than_their_file(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    with pytest.raises(ArchiveError, match=r"a tensor of \[1000000, 1000000\]"):
        load_tensors(tmp_path / "a.pt")


def test_changed_bytes(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    at = content.index(torch.arange(400, 410).numpy().tobytes())
    content[at] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="have changed"):
        load_tensors(tmp_path / "a.pt")


def test_containers_without_end(tmp_path: Path) -> None:
    node: Any = ["x"]
    for _ in range(40):
        node = [node, node]
    torch.save({"a": node}, tmp_path / "a.pt")
    with pytest.raises(ForeignFileError, match="more than 50,000 values"):
        load_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_saves_is_read(tmp_path: Path, legacy: bool) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.zeros(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [3])
    content = {
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "half": torch.zeros(2, dtype=torch.bfloat16),
        "facts": [torch.float16, torch.device("cpu"), torch.Size([1]), b"x", None, True, 1.5, 2**40],
    }
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = load_tensors(tmp_path / "a.pt")
    assert found.keys() == content.keys()
    assert found["facts"] == content["facts"]
    assert all(torch.equal(v, found["net"][k]) for k, v in net.state_dict().items())


def test_saving_never_holds_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {f"w{i}": torch.randn(1 << 16) for i in range(20)}  # 256 KB each
    written, write = [], Sink.write
    monkeypatch.setattr(Sink, "write", lambda self, content: written.append(len(content)) or write(self, content))
    save_tensors(tmp_path / "a.ckpt", state)
    assert max(written) <= 4 << 16
    assert sum(written) == (tmp_path / "a.ckpt").stat().st_size
    assert all(torch.equal(value, state[name]) for name, value in load_tensors(tmp_path / "a.ckpt").items())


def test_a_disk_that_fills_while_a_tensor_is_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which torch.save itself says that a position was unexpected."""
    save_tensors(tmp_path / "a.ckpt", {"w": torch.zeros(3)})
    before, write, left = (tmp_path / "a.ckpt").read_bytes(), Sink.write, [1 << 20]

    class Full:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file

        def write(self, content: bytes) -> int:
            left[0] -= len(content)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

    def limited(self: Sink, content: bytes) -> int:
        self.file = self.file if isinstance(self.file, Full) else Full(self.file)  # type: ignore[assignment]
        return write(self, content)

    monkeypatch.setattr(Sink, "write", limited)
    with pytest.raises(OSError, match="No space left on device"):
        save_tensors(tmp_path / "a.ckpt", {f"w{i}": torch.randn(1 << 16) for i in range(20)})
    assert (tmp_path / "a.ckpt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_tensors_that_no_training_ends_with_are_named() -> None:
    """Tensors without numbers, of a network that is only measured, cannot be judged."""
    state = {
        "whole": torch.ones(2),
        "counted": torch.ones(2, dtype=torch.int64),
        "half": torch.full((2,), torch.nan, dtype=torch.float16),
        "large": torch.full((2,), 1e300, dtype=torch.float64),
        "bn.running_var": torch.tensor([1.0, -1e-3]),
        "bn.running_mean": torch.tensor([1.0, -1e-3]),
        "shape": torch.empty(2, device="meta"),
    }
    assert not_finite(state) == ["half", "large", "bn.running_var"]


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_weights_fill_a_network_without_numbers(tmp_path: Path) -> None:
    file = tmp_path / "resnet18.pth"
    torch.save(ResNet(depth=18).state_dict(), file)
    with torch.device("meta"):
        assert ResNet(depth=18, weights=str(file)).conv1.weight.is_meta
