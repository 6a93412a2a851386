"""Other runtimes than torch detect the same; graphs are made for few canvases, and one that differs is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from detlab.config.compose import compose_config, make_detector, plain_config
from detlab.detectors import Detector
from detlab.detectors.graph import INPUTS, OPSET, OUTPUTS, TOLERANCE, disagreement, example, traced, write_onnx
from detlab.detectors.runtimes import RUNTIMES, InRuntime, Shape, check_runtime
from detlab.errors import ConfigError
from detlab.tensors.structures import Batch, Detections

CPU = torch.device("cpu")
OPTIONS = ["model=retinanet", "model/neck=fpn_small", "model.neck.width=8", "model.head.width=8", "model.head.depth=1"]


@pytest.fixture(scope="module")
def detector() -> Detector:
    """A detector of a few thousand parameters whose scores differ."""
    torch.manual_seed(0)
    config = plain_config(compose_config("train", OPTIONS), ["model"])["model"]
    config["backbone"] = {"_target_": "tests.tiny.Tiny"}
    detector = make_detector(config, 3).eval()
    torch.nn.init.normal_(detector.head.cls.weight, std=2)
    torch.nn.init.zeros_(detector.head.cls.bias)
    torch.nn.init.normal_(detector.head.box.weight, std=0.3)
    return detector


def noise(number: int, canvas: tuple[int, int], *, smaller: int = 0, seed: int = 0) -> Batch:
    """Images `smaller` px less wide than their canvas."""
    images = torch.randint(
        0, 256, (number, 3, *canvas), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    images[..., canvas[1] - smaller :] = 0
    sizes = torch.tensor([[canvas[0], canvas[1] - smaller]] * number)
    return Batch(images.to(memory_format=torch.channels_last), sizes, sizes, torch.arange(number))


def need(runtime: str) -> None:
    for module in RUNTIMES[runtime].modules:
        pytest.importorskip(module, reason=f"{module} is in the extra '{RUNTIMES[runtime].extra}'")


@pytest.fixture(scope="module")
def written(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector as a file for two images of 64 x 96 px."""
    path = tmp_path_factory.mktemp("graph") / "detector.onnx"
    write_onnx(traced(detector, example(2, (64, 96))), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_detects_what_torch_does(
    runtime: str, detector: Detector, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(runtime)
    path = request.getfixturevalue("written")
    monkeypatch.setattr(InRuntime, "_made", lambda self, shape: RUNTIMES[runtime].read(path))
    there = InRuntime(detector, runtime)
    for batch in (noise(2, (64, 96), smaller=10), noise(2, (64, 96), seed=1), noise(1, (64, 96), smaller=30, seed=2)):
        with torch.inference_mode():
            expected, found = detector.detect(batch), there.detect(batch)
        assert expected.real.sum(1).min() >= 10
        assert len(found.boxes) == len(batch.images)
        assert disagreement(found, expected) <= TOLERANCE
    assert list(there.graphs) == [(2, (64, 96))]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_as_a_function_of_a_batch(runtime: str, tmp_path: Path) -> None:
    """A graph written by hand: one box of the image's size; its score and label are its first red pixel."""
    need(runtime)
    import onnx
    from onnx import TensorProto, helper

    images, sizes = INPUTS
    boxes, scores, labels = OUTPUTS
    constants = {"zeros": [0, 0, 0], "ones": [1, 1, 1], "all_but_0": [1, 2, 3], "1": [1], "2, 3": [2, 3]}
    taken = [
        ("Slice", [images, "zeros", "ones", "all_but_0"], "pixel"),
        ("Squeeze", ["pixel", "2, 3"], "top_left"),
        ("Cast", ["top_left"], scores, {"to": TensorProto.FLOAT}),
        ("Cast", ["top_left"], labels, {"to": TensorProto.INT64}),
        ("Cast", [sizes], "floats", {"to": TensorProto.FLOAT}),
        ("Concat", ["floats", "floats"], "four", {"axis": 1}),
        ("Unsqueeze", ["four", "1"], boxes),
    ]
    nodes = [helper.make_node(kind, given, [made], **dict(*more)) for kind, given, made, *more in taken]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(images, TensorProto.UINT8, [2, 3, 32, 64]),
            helper.make_tensor_value_info(sizes, TensorProto.INT64, [2, 2]),
        ],
        [
            helper.make_tensor_value_info(boxes, TensorProto.FLOAT, [2, 1, 4]),
            helper.make_tensor_value_info(scores, TensorProto.FLOAT, [2, 1]),
            helper.make_tensor_value_info(labels, TensorProto.INT64, [2, 1]),
        ],
        [onnx.numpy_helper.from_array(np.array(v, np.int64), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.save(model, str(tmp_path / "x.onnx"))
    run = RUNTIMES[runtime].read(tmp_path / "x.onnx")
    first, second = (noise(2, (32, 64), smaller=4, seed=seed) for seed in (1, 2))
    found, later = run(first.images, first.sizes), run(second.images, second.sizes)
    for batch, got in ((first, found), (second, later)):
        assert got.boxes.tolist() == [[[32.0, 60.0] * 2]] * 2
        assert got.scores.tolist() == batch.images[:, :1, 0, 0].tolist() == got.labels.tolist()
        assert [rows.dtype for rows in got] == [torch.float32, torch.float32, torch.int64]


@pytest.fixture
def counted(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> InRuntime:
    """Graphs that are torch's own detector, so that only their number and shapes are tested."""

    def make(self: InRuntime, shape: Shape) -> Callable[..., Detections]:
        def graph(images: torch.Tensor, sizes: torch.Tensor) -> Detections:
            assert (len(images), tuple(images.shape[2:])) == shape
            return detector.detect(Batch(images, sizes, sizes, torch.arange(len(images))))

        return graph

    monkeypatch.setattr(InRuntime, "_made", make)
    return InRuntime(detector, "onnxruntime")


@torch.no_grad()
def test_few_graphs_for_many_sizes(counted: InRuntime, detector: Detector) -> None:
    shapes = [(4, (96, 128)), (4, (96, 96)), (3, (96, 128)), (4, (128, 96)), (4, (32, 64)), (4, (128, 128))]
    for number, canvas in shapes:
        found = counted.detect(noise(number, canvas))
        assert len(found.boxes) == number
        assert (found.boxes.amax((0, 1)) <= torch.tensor([canvas[1], canvas[0]] * 2)).all()
    assert list(counted.graphs) == [(4, (96, 128)), (4, (128, 96)), (4, (32, 64)), (4, (128, 128))]


@torch.no_grad()
def test_a_rest_of_a_batch_needs_no_graph_but_single_images_do(counted: InRuntime) -> None:
    counted.detect(noise(8, (64, 64)))
    counted.detect(noise(1, (64, 64)))
    assert list(counted.graphs) == [(8, (64, 64))]
    for _ in range(3):
        counted.detect(noise(1, (64, 64)))
    assert list(counted.graphs) == [(8, (64, 64)), (1, (64, 64))]


@torch.no_grad()
def test_padding_is_that_of_a_batch_with_larger_images(counted: InRuntime, detector: Detector) -> None:
    counted.detect(noise(1, (96, 128)))
    small = noise(1, (96, 96), seed=3)
    padded = small._replace(images=torch.nn.functional.pad(small.images, (0, 32)))
    assert disagreement(counted.detect(small), detector.detect(padded)) == 0


@torch.no_grad()
def test_a_graph_that_detects_something_else_is_refused(counted: InRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    make = counted._made

    def shifted(self: InRuntime, shape: Shape) -> Callable[..., Detections]:
        graph = make(shape)

        def run(images: torch.Tensor, sizes: torch.Tensor) -> Detections:
            found = graph(images, sizes)
            return found._replace(boxes=found.boxes + 1)

        return run

    monkeypatch.setattr(InRuntime, "_made", shifted)
    with pytest.raises(
        ConfigError, match=r"^runtime=onnxruntime gives other detections than torch .* use runtime=torch"
    ):
        counted.detect(noise(1, (64, 64)))


def test_what_another_runtime_does_not_do() -> None:
    for runtime, device, precision, message in (
        ("foo", "cpu", "fp32", "runtime=foo is not known; use one of torch, onnxruntime, openvino"),
        ("openvino", "cuda", "fp32", "device=cuda does not fit runtime=openvino, which runs on a CPU; use device=cpu"),
        ("openvino", "cpu", "bf16", "precision=bf16 does not fit runtime=openvino"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_runtime(runtime, torch.device(device), precision)
    check_runtime("torch", CPU, "bf16")
