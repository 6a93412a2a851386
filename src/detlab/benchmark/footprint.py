"""target=footprint: operations, waits and bytes of a step on a GPU that is not there, or on one that is.

torch's fake tensors run every operation without numbers: they have shapes, types and lifetimes, so a step of any size
is counted in seconds on a laptop. What they cannot show is time; `device=cuda` runs the step and measures that too.
"""

from __future__ import annotations

import statistics
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from detlab.benchmark.measuring import interleave, peak_bytes, set_up, synchronisations
from detlab.benchmark.options import OptionError
from detlab.benchmark.step import format_of
from detlab.config.compose import build_detector
from detlab.detectors.detector import Detector
from detlab.tensors.structures import Batch, Proposals, Targets

LIMIT = 2 * 2**30  # bytes of one tensor that the algorithm does not force
WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "nms", "unique_dim", "_unique2")


class Footprint(NamedTuple):
    """What one call costs."""

    operations: Counter[str]  # {operation: calls}
    waits: Counter[str]  # {operation: calls for which the host waits}
    peak: int  # bytes held at once, without those held before the call
    largest: dict[str, int]  # {operation and shape: bytes} of every tensor above `LIMIT`


class Counting(TorchDispatchMode):
    """Counts operations and waits, and follows the storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.held = self.peak = 0
        self.largest: dict[str, int] = {}
        self._seen: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it; a number that the host asks for is 1 (done, found, converged)."""
        name = func.overloadpacket.__name__
        for given in tree_leaves(args):  # tensors from before are not part of the peak
            if isinstance(given, Tensor):
                self._seen.setdefault(given.untyped_storage(), 0)
        if func.namespace != "prim":  # asks a tensor for its device
            self.operations[name] += 1
        selects = name == "index" and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        if name in WAITS or selects:
            self.waits["index by a mask" if selects else name] += 1
        if name == "_local_scalar_dense":
            return True if args[0].dtype == torch.bool else 1
        if name == "nms":
            self._briefly(args[0].shape[0])
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self._hold(made, name)
        return out

    def _hold(self, made: Tensor, name: str) -> None:
        storage = made.untyped_storage()
        if storage in self._seen:
            return
        size = _bytes(storage)
        self._seen[storage] = size
        weakref.finalize(storage, self._drop, size)
        self.held += size
        self.peak = max(self.peak, self.held)
        if size > LIMIT:
            shape = tuple(int(n) for n in made.shape)
            self.largest[f"{name} {str(made.dtype).removeprefix('torch.')} {shape}"] = size

    def _briefly(self, rows: int) -> None:
        """The bit mask [rows, rows] that NMS holds on a GPU while it runs."""
        size = rows * -(-rows // 64) * 8
        self.peak = max(self.peak, self.held + size)
        if size > LIMIT:
            self.largest[f"mask of nms ({rows}, {rows})"] = size

    def _drop(self, size: int) -> None:
        self.held -= size


def _bytes(storage: torch.UntypedStorage) -> int:
    try:
        return int(storage.nbytes())
    except Exception:  # the number of rows that NMS keeps has no value on a fake GPU
        return 0


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    """Tensors made inside have no numbers, and say that they lie on a GPU.

    Their device is the CPU's all the same: autograd refuses to run backward on a device whose driver is missing.
    """
    on_gpu = patch.object(FakeTensor, "is_cuda", property(lambda self: True), create=True)
    with on_gpu, FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True) as mode:
        yield mode


def without_numbers(detector: Detector, mode: FakeTensorMode) -> None:
    """Replace all weights and buffers by fake ones, in place."""
    for module in detector.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = mode.from_tensor(weight.detach())
                module._parameters[name] = nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer)


def fake_batch(images: int, canvas: tuple[int, int], boxes: int, proposals: int = 2000) -> Batch:
    """A batch of zeros."""
    rows = images, boxes
    none = torch.zeros(rows, dtype=torch.bool)
    truth = Targets(torch.zeros(*rows, 4), torch.zeros(rows, dtype=torch.int64), torch.zeros(rows), none, none)
    given = Proposals(torch.zeros(images, proposals, 4), torch.zeros(images, proposals))
    sizes = torch.zeros(images, 2, dtype=torch.int64)
    pixels = torch.zeros(images, 3, *canvas, dtype=torch.uint8)
    return Batch(pixels, sizes, sizes, torch.zeros(images, dtype=torch.int64), truth, given)


def training(detector: Detector, batch: Batch, dtype: torch.dtype) -> Callable[[], None]:
    """Losses and their gradients."""
    detector.train()
    device = batch.images.device.type

    def step() -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            total = torch.stack(list(detector.loss(batch).values())).sum()
        total.backward()
        detector.zero_grad(set_to_none=True)

    return step


def evaluation(detector: Detector, batch: Batch, dtype: torch.dtype) -> Callable[[], None]:
    """Losses and detections, as in a validation step."""
    detector.eval()
    device = batch.images.device.type

    def step() -> None:
        with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            detector.evaluate(batch)

    return step


PHASES = {"train": training, "evaluate": evaluation}


def measure(
    overrides: Sequence[str],
    classes: int,
    phase: str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    images: int = 16,
    canvas: tuple[int, int] = (800, 1344),
    boxes: int = 100,
) -> Footprint:
    """The footprint of a step of the detector of these options; the anchors of the canvas are there before it."""
    detector = build_detector([*overrides, "model.backbone.weights=null"], num_classes=classes)
    with fake_gpu() as mode:
        without_numbers(detector, mode)
        with Counting():  # which answers what the host asks for
            PHASES[phase](detector, fake_batch(1, canvas, 1), dtype)()
        step = PHASES[phase](detector, fake_batch(images, canvas, boxes), dtype)
        with Counting() as counted:
            step()
    return Footprint(counted.operations, counted.waits, counted.peak, counted.largest)


class Measured(NamedTuple):
    """What one call costs on a real GPU."""

    waits: int  # times that the host waits
    peak: int  # bytes held at once, without those held before the call
    times: list[float]  # seconds of each of the repeats


def random_batch(images: int, canvas: tuple[int, int], boxes: int, classes: int, proposals: int = 2000) -> Batch:
    """Noise with boxes of 16 px to 60 % of the canvas; a proposal is a box of the image, moved, or one anywhere."""
    g = torch.Generator().manual_seed(0)
    sides = torch.tensor([canvas[1], canvas[0]])
    size = 16 + torch.rand(images, boxes, 2, generator=g) ** 2 * (0.6 * sides - 16)
    low = torch.rand(images, boxes, 2, generator=g) * (sides - size)
    box = torch.cat([low, low + size], dim=2)
    none = torch.zeros(images, boxes, dtype=torch.bool)
    truth = Targets(box, torch.randint(0, classes, (images, boxes), generator=g), size.prod(2), none, none)
    near = box[:, torch.arange(proposals) % boxes] + 8 * torch.randn(images, proposals, 4, generator=g)
    given = Proposals(near, torch.rand(images, proposals, generator=g))
    pixels = torch.randint(0, 256, (images, 3, *canvas), dtype=torch.uint8, generator=g)
    sizes = torch.tensor(canvas).expand(images, 2).clone()
    return Batch(pixels, sizes, sizes, torch.arange(images), truth, given)


def measure_on_gpu(
    overrides: Sequence[str],
    classes: int,
    phase: str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    images: int,
    canvas: tuple[int, int],
    boxes: int,
    repeats: int,
) -> Measured:
    """As `measure`, run on the first GPU; two steps before it warm up."""
    device = torch.device("cuda", 0)
    torch.manual_seed(0)
    detector = build_detector([*overrides, "model.backbone.weights=null"], num_classes=classes).to(device)
    step = PHASES[phase](detector, random_batch(images, canvas, boxes, classes).to(device), dtype)
    for _ in range(2):
        step()
    times = interleave({"step": step}, repeats=repeats, warm_up=0, device=device)["step"]
    return Measured(synchronisations(step), peak_bytes(step, device), times)


def run(
    *,
    model: str = "retinanet",
    options: str = "",
    phase: str = "train",
    precision: str = "bf16",
    batch: int = 16,
    height: int = 800,
    width: int = 1344,
    boxes: int = 100,
    classes: int = 80,
    device: str = "fake",
    repeats: int = 5,
) -> dict[str, Any]:
    """Count a step of `model` (and of space-separated `options`); the ratio is the largest tensor's to 2 GiB.

    device=cuda: run the step, for its time, its waits and its peak; the ratio is that of this peak to the counted one.
    """
    if phase not in PHASES:
        raise OptionError(f"phase={phase} is not known; use one of {', '.join(PHASES)}.")
    chosen, dtype = [f"model={model}", *options.split()], format_of(precision)
    if device not in ("fake", "cuda"):
        raise OptionError(f"device={device} is not known here; use fake or cuda.")
    if device == "cuda":
        set_up(None, device)  # which refuses it where no GPU is
    found = measure(chosen, classes, phase, dtype, images=batch, canvas=(height, width), boxes=boxes)
    print(
        f"operations {sum(found.operations.values())}   waits {dict(found.waits)}   peak {found.peak / 2**30:.2f} GiB"
    )
    for name, size in sorted(found.largest.items(), key=lambda row: -row[1]):
        print(f"{size / 2**30:8.2f} GiB  {name}")
    counted = {
        "operations": dict(found.operations),
        "waits": dict(found.waits),
        "peak_bytes": found.peak,
        "above_2_GiB": found.largest,
    }
    if device == "fake":
        return counted | {"ratio": max(found.largest.values(), default=0) / LIMIT}
    real = measure_on_gpu(
        chosen, classes, phase, dtype, images=batch, canvas=(height, width), boxes=boxes, repeats=repeats
    )
    middle = statistics.median(real.times)
    print(
        f"{torch.cuda.get_device_name(0)}: {1000 * middle:.1f} ms ({1000 * min(real.times):.1f} to "
        f"{1000 * max(real.times):.1f})   waits {real.waits}   peak {real.peak / 2**30:.2f} GiB"
    )
    measured = {"gpu": torch.cuda.get_device_name(0), "seconds": real.times, "waits": real.waits, "peak": real.peak}
    return counted | {"measured": measured, "ratio": real.peak / found.peak}
