"""torchvision's detectors with the same random weights give the same losses and the same set of detections."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d

from detlab.detectors import from_torchvision
from detlab.tensors.structures import Batch, Targets

SIDE = 256
CANVASES = [(160, 224), (256, 352)]  # whose P6 and P7 are finer than a side over its stride
CLASSES = 11
TOLERANCE = 1e-4


def batch_on(canvas: tuple[int, int]) -> Batch:
    """Two images that fill their canvas, five boxes each."""
    g = torch.Generator().manual_seed(3)
    xy = torch.rand(2, 5, 2, generator=g) * 150
    boxes = torch.cat([xy, xy + 20 + torch.rand(2, 5, 2, generator=g) * 80], dim=2)
    boxes = boxes * torch.tensor(canvas).flip(0).repeat(2) / SIDE
    labels = torch.randint(0, CLASSES - 1, (2, 5), generator=g)
    no = torch.zeros(2, 5, dtype=torch.bool)
    targets = Targets(boxes, labels, torch.ones(2, 5), no, no)
    sizes = torch.tensor([canvas, canvas])
    images = torch.randint(0, 256, (2, 3, *canvas), dtype=torch.uint8, generator=g)
    return Batch(images, sizes, sizes, torch.arange(2), targets)


@pytest.fixture
def batch() -> Batch:
    return batch_on((SIDE, SIDE))


def padded(batch: Batch) -> Batch:
    """The second image smaller than the canvas."""
    height, width = batch.canvas[0] * 3 // 4, batch.canvas[1] - 30
    images = batch.images.clone()
    images[1, :, height:], images[1, :, :, width:] = 0, 0
    sizes = torch.tensor([batch.canvas, (height, width)])
    return batch._replace(images=images, sizes=sizes, original_sizes=sizes)


def randomise(model: nn.Module) -> None:
    """Spread scores, so that a random network detects something, and make batch norms differ from identity."""
    g = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("cls_logits", "cls_score", "bbox")):
            parameter.data.normal_(0, 0.05, generator=g)
        elif name.endswith("bn3.weight"):
            parameter.data.fill_(0.2)  # residual branches this small keep activations near 1
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.05, generator=g)


def theirs(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = getattr(detection, name)(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        **options,
    )
    randomise(model)
    model.transform.resize = lambda image, target: (image, target)
    return model.eval()


def as_lists(batch: Batch, shift: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images = [image[:, :h, :w] / 255 for image, (h, w) in zip(batch.images, batch.sizes.tolist(), strict=True)]
    targets = [
        {"boxes": b, "labels": n + shift} for b, n in zip(batch.targets.boxes, batch.targets.labels, strict=True)
    ]
    return images, targets


def training_losses(model: nn.Module, batch: Batch, shift: int) -> dict[str, Tensor]:
    """torchvision gives losses only in training mode; batch norms stay in evaluation here."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model(*as_lists(batch, shift))


def assert_same_detections(found: object, expected: list[dict[str, Tensor]], shift: int) -> None:
    for i, want in enumerate(expected):
        real = found.real[i]
        boxes, scores, labels = found.boxes[i][real], found.scores[i][real], found.labels[i][real] + shift
        assert len(want["scores"]) >= 50
        assert len(scores) == len(want["scores"])
        torch.testing.assert_close(scores, want["scores"], atol=TOLERANCE, rtol=0)
        # As sets: rows of equal score may come in another order.
        cost = torch.cdist(boxes, want["boxes"], p=1) + 100 * (labels[:, None] != want["labels"][None])
        assert cost.min(dim=1).values.max() < 4 * SIDE * TOLERANCE
        assert cost.min(dim=0).values.max() < 4 * SIDE * TOLERANCE


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"])
def test_retinanet_parity(name: str, batch: Batch) -> None:
    model = theirs(name, score_thresh=0.0, topk_candidates=2000, detections_per_img=200)
    ours = from_torchvision(name, model.state_dict(), CLASSES)
    ours.final.score_threshold, ours.final.topk, ours.final.max_detections = 0.0, 2000, 200
    with torch.no_grad():
        want, losses = model(as_lists(batch, 0)[0]), training_losses(model, batch, 0)
        found, mine = ours.detect(batch), ours.loss(batch)
    torch.testing.assert_close(mine["loss_cls"], losses["classification"], rtol=TOLERANCE, atol=0)
    torch.testing.assert_close(mine["loss_box"], losses["bbox_regression"], rtol=TOLERANCE, atol=0)
    assert_same_detections(found, want, 0)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"])
def test_faster_rcnn_parity(name: str, batch: Batch) -> None:
    everything = 100_000  # sampling caps that keep all
    model = theirs(
        name,
        rpn_post_nms_top_n_train=150,
        rpn_post_nms_top_n_test=150,
        rpn_batch_size_per_image=everything,
        box_batch_size_per_image=everything,
        box_score_thresh=0.01,
    )
    ours = from_torchvision(name, model.state_dict(), CLASSES)
    ours.rpn.detect.post_nms = {True: 150, False: 150}
    ours.rpn.criterion.sampler.size = ours.criterion.sampler.size = everything
    ours.final.score_threshold = 0.01
    with torch.no_grad():
        want, losses = model(as_lists(batch, 1)[0]), training_losses(model, batch, 1)
        found, mine = ours.detect(batch), ours.loss(batch)
    for name_here, name_there in {
        "rpn/loss_cls": "loss_objectness",
        "rpn/loss_box": "loss_rpn_box_reg",
        "loss_cls": "loss_classifier",
        "loss_box": "loss_box_reg",
    }.items():
        torch.testing.assert_close(mine[name_here], losses[name_there], rtol=TOLERANCE, atol=0)
    assert_same_detections(found, want, 1)


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn"])
def test_detections_on_canvases_that_strides_do_not_divide(name: str, canvas: tuple[int, int]) -> None:
    """Images that fill them, and a smaller one padded to them."""
    low = {"box_score_thresh": 0.01} if name.startswith("faster") else {"score_thresh": 0.0, "topk_candidates": 2000}
    model = theirs(name, **low)
    ours = from_torchvision(name, model.state_dict(), CLASSES)
    shift = int(name.startswith("faster"))
    ours.final.score_threshold = 0.01 if shift else 0.0
    if not shift:
        ours.final.topk = 2000
    for batch in (batch_on(canvas), padded(batch_on(canvas))):
        with torch.no_grad():
            assert_same_detections(ours.detect(batch), model(as_lists(batch, shift)[0]), shift)
    if name.startswith("retinanet") and canvas == CANVASES[0]:
        ours.anchors.steps = "stride"  # lays P6 and P7 elsewhere, where other boxes are found
        ours.anchors._cache.clear()
        with torch.no_grad(), pytest.raises(AssertionError):
            assert_same_detections(ours.detect(batch), model(as_lists(batch, shift)[0]), shift)


@pytest.fixture
def ssd_batch() -> Batch:
    """Boxes whose best default boxes differ: where two share one, torchvision forgets the first."""
    boxes = torch.tensor([[[20.0, 30, 90, 120], [150, 140, 280, 290]], [[100.0, 10, 220, 100], [5, 200, 60, 290]]])
    no = torch.zeros(2, 2, dtype=torch.bool)
    targets = Targets(boxes, torch.tensor([[0, 4], [9, 2]]), torch.ones(2, 2), no, no)
    sizes = torch.full((2, 2), 300)
    images = torch.randint(0, 256, (2, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return Batch(images, sizes, sizes, torch.arange(2), targets)


def test_ssd_parity(ssd_batch: Batch) -> None:
    torch.manual_seed(0)
    model = detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    g = torch.Generator().manual_seed(5)
    for parameter in model.head.parameters():
        parameter.data.normal_(0, 0.001, generator=g)  # scores that differ and do not saturate
    ours = from_torchvision("ssd300_vgg16", model.state_dict(), CLASSES)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        want, losses = model(as_lists(ssd_batch, 1)[0]), training_losses(model, ssd_batch, 1)
        found, mine = ours.detect(ssd_batch), ours.loss(ssd_batch)
    torch.testing.assert_close(mine["loss_cls"], losses["classification"], rtol=TOLERANCE, atol=0)
    torch.testing.assert_close(mine["loss_box"], losses["bbox_regression"], rtol=TOLERANCE, atol=0)
    assert_same_detections(found, want, 1)


def test_frozen_weights_of_the_first_versions_use_eps_zero() -> None:
    model = theirs("retinanet_resnet50_fpn")
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    ours = from_torchvision("retinanet_resnet50_fpn", state, CLASSES)
    assert ours.backbone.norm == "frozen_bn"
    assert isinstance(ours.backbone.bn1, FrozenBatchNorm2d)
    assert ours.backbone.bn1.eps == 0.0


def test_a_wrong_class_count_is_one_sentence() -> None:
    model = theirs("retinanet_resnet50_fpn")
    with pytest.raises(ValueError, match="does not fit retinanet_resnet50_fpn with num_classes=7"):
        from_torchvision("retinanet_resnet50_fpn", model.state_dict(), 7)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="use one of fasterrcnn_resnet50_fpn"):
        from_torchvision("maskrcnn_resnet50_fpn")
