"""Fast R-CNN, SPPnet and R-CNN: their shared RoI stage, test scales, training sizes, frozen layers, golden losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from detlab import build_detector
from detlab.detectors.pyramid import ImagePyramid, rescaled
from detlab.model.coders import BoxCoder
from detlab.model.criterion import Assignment, Criterion
from detlab.model.losses import CrossEntropyLoss, SmoothL1Loss
from detlab.model.matchers import IoUMatcher
from detlab.model.pools import RoIAlign
from detlab.model.samplers import RandomSampler
from detlab.tensors.structures import Batch, Prediction, Proposals
from tests.batches import make_batch

FAMILIES = {
    "fast_rcnn": ["model=fast_rcnn", "model.neck.width=16", "model.head.width=32"],
    "sppnet": ["model=sppnet", "model.head.width=32"],
    "rcnn": ["model=rcnn", "model.pool.crop=32", "model.pool.context=4"],
}
LOW = ["model.detect.score_threshold=0.01"]


def build(family: str, *overrides: str) -> Any:
    return build_detector([*FAMILIES[family], *LOW, *overrides], num_classes=3)


@pytest.fixture
def batch() -> Batch:
    return make_batch([[[4, 4, 36, 30], [20, 24, 60, 60]], [[8, 10, 40, 50]]], [[0, 2], [1]])


def without_proposals(batch: Batch) -> Batch:
    none = Proposals(torch.zeros_like(batch.proposals.boxes), torch.full_like(batch.proposals.scores, -1))
    return batch._replace(proposals=none)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_three_steps_make_the_detections(family: str, batch: Batch) -> None:
    """Features cached per RoI and scored later are what `detect` scores; padding stays out."""
    detector = build(family).eval()
    boxes, real = batch.proposals.boxes, batch.proposals.real
    with torch.no_grad():
        described = detector.roi_features(batch, boxes, real)
        assert described.shape == (2, 12, detector.head.width)
        assert described[~real].abs().max() == 0
        cached = detector.detect_from(detector.predict_from(described), batch.proposals, batch)
        found = detector.detect(batch)
    assert found.real.any(1).all()
    assert all(torch.equal(a, b) for a, b in zip(cached, found, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_the_second_image_are_its_own(family: str, batch: Batch) -> None:
    detector = build(family).eval()
    own = Proposals(*(v[1:] for v in batch.proposals))
    alone = Batch(*(v[1:] for v in batch[:4]), proposals=own)
    with torch.no_grad():
        both, one = detector.detect(batch), detector.detect(alone)
    torch.testing.assert_close(both.scores[1:], one.scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("truth", [True, False])
def test_no_proposals_at_all(family: str, truth: bool, batch: Batch) -> None:
    """With ground truth among the RoIs there is something to learn; without it the losses are 0, gradients zeros."""
    detector = build(family, f"model.append_truth={str(truth).lower()}", "model.sampler.size=8").train()
    losses = detector.loss(without_proposals(batch))
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    assert (losses["loss_cls"] > 0) == truth
    with torch.no_grad():
        assert not detector.eval().detect(without_proposals(batch)).real.any()


def test_a_batch_without_the_field_is_one_sentence(batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"use data.proposals=grid"):
        build("fast_rcnn").loss(batch._replace(proposals=None))


def test_truth_is_sampled_only_where_wanted(batch: Batch) -> None:
    for append in (True, False):
        rois = build("fast_rcnn", f"model.append_truth={str(append).lower()}", "model/matcher=roi").sample(
            batch.proposals, batch
        )
        truth = batch.targets.boxes[0, 0]
        assert bool((rois.boxes[0] == truth).all(1).any()) == append


def test_background_of_little_overlap_is_left_out() -> None:
    """Fast R-CNN section 2.3: [0.1, 0.5) is background; less is ignored, and all of an image without boxes."""
    batch = make_batch([[[0, 0, 10, 10]], []], [[0], []])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 30], [0, 0, 10, 200], [30, 30, 40, 40]]]).expand(2, -1, -1)
    options = {"positive": 0.5, "negative": 0.5, "force_best": False}
    assert IoUMatcher(**options, negative_from=0.1)(boxes, batch.targets).state.tolist() == [[1, 0, -1, -1], [-1] * 4]
    assert IoUMatcher(**options)(boxes, batch.targets).state.tolist() == [[1, 0, 0, 0], [0] * 4]
    empty = make_batch([[]], [[]]).targets
    assert IoUMatcher(**options, negative_from=0.1)(boxes[:1], empty).state.tolist() == [[-1] * 4]


def test_multi_task_loss_by_hand() -> None:
    """One foreground and one background RoI, K = 2, zero logits, differences (.5, 0, 2, 0): 1.098612 + 0.8125."""
    coder = BoxCoder(weights=(1, 1, 1, 1))
    criterion = Criterion(
        matcher=None, sampler=RandomSampler(size=2, positive_fraction=0.5), cls_loss=CrossEntropyLoss(),
        box_loss=SmoothL1Loss(beta=1.0), coder=coder, normalizer="sampled",
    )  # fmt: skip
    rois = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    deltas = torch.zeros(1, 2, 2, 4)
    deltas[0, 0, 1] = torch.tensor([0.5, 0, 2, 0])  # the true class's; the target is the RoI itself: offsets 0
    deltas[0, 0, 0] = 7.0  # another class's, which must not count
    deltas.requires_grad_()
    assignment = Assignment(torch.tensor([[1, 2]]), rois.clone(), torch.tensor([[1, 0]], dtype=torch.int8))
    chosen = torch.ones(1, 2, dtype=torch.bool)
    losses = criterion(Prediction(logits, deltas), rois, assignment, torch.zeros(1).long(), 2, chosen=chosen)
    assert losses["loss_cls"].item() == pytest.approx(math.log(3), abs=1e-6)
    assert losses["loss_box"].item() == pytest.approx(0.8125, abs=1e-6)
    sum(losses.values()).backward()
    assert sum(losses.values()).item() == pytest.approx(1.911112, abs=1e-6)
    assert deltas.grad.nonzero().tolist() == [[0, 0, 1, 0], [0, 0, 1, 2]]


def test_the_scale_of_a_roi() -> None:
    """A 100 px RoI in a 300 px image: 160 and 192 px at 480 and 576, 229 at 688, 288 at 864: nearest is 688."""
    pyramid = ImagePyramid([480, 576, 688, 864, 1200], 2000)
    sizes = torch.tensor([[300, 400], [600, 1600]])
    torch.testing.assert_close(
        pyramid.factors(sizes),
        torch.tensor([[1.6, 0.8], [1.92, 0.96], [688 / 300, 688 / 600], [2.88, 1.25], [4.0, 1.25]]),  # 2000 / 1600
    )
    boxes = torch.tensor([[0.0, 0, 100, 100], [0, 0, 10, 10], [0, 0, 300, 300], [0, 0, 200, 50]])
    assert pyramid.nearest(boxes[None], sizes[:1]).tolist() == [[2, 4, 0, 2]]


def test_a_rescaled_batch_keeps_what_belongs_together(batch: Batch) -> None:
    half = rescaled(batch, torch.tensor([0.5, 1.0]))
    assert half.sizes.tolist() == [[32, 32], [64, 64]]
    assert half.canvas == (64, 64)
    assert half.images[0, :, 32:].max() == half.images[0, :, :, 32:].max() == 0
    assert torch.equal(half.images[1], batch.images[1])
    torch.testing.assert_close(half.targets.boxes[0], batch.targets.boxes[0] / 2)
    torch.testing.assert_close(half.targets.area[0], batch.targets.area[0] / 4)
    torch.testing.assert_close(half.proposals.boxes[0], batch.proposals.boxes[0] / 2)
    torch.testing.assert_close(half.proposals.boxes[1], batch.proposals.boxes[1])


@pytest.mark.parametrize("family", ["fast_rcnn", "sppnet"])
def test_test_scales_read_each_roi_at_its_own(family: str, batch: Batch) -> None:
    plain, scaled = (build(family, f"model.test_scales={s}").eval() for s in ("null", "[64, 128]"))
    scaled.load_state_dict(plain.state_dict())
    boxes, real = batch.proposals.boxes, batch.proposals.real
    boxes = torch.cat([boxes, torch.tensor([[0.0, 0, 64, 64]]).expand(2, 1, 4)], dim=1)
    real = torch.cat([real, torch.ones(2, 1, dtype=torch.bool)], dim=1)
    with torch.no_grad():
        large = rescaled(batch, torch.tensor([2.0, 2.0]))
        at_two = plain.roi_features(large, boxes * 2, real)
        found = scaled.roi_features(batch, boxes, real)
        torch.testing.assert_close(found, at_two)  # 64 px RoIs: all nearer 224 px at 128
        scaled.pyramid = ImagePyramid([64, 320], 2000)
        scale = scaled.pyramid.nearest(boxes, batch.sizes)
        found = scaled.roi_features(batch, boxes, real)
        at_one = plain.roi_features(batch, boxes, real)
        small = real & (scale == 0)
        assert small.any()
        assert (real & (scale == 1)).any()
        torch.testing.assert_close(found[small], at_one[small])
        given = scaled.roi_features(batch, boxes, real, scaled.features(batch))
        torch.testing.assert_close(given, at_one)  # features that are given are read as they are
        assert scaled.detect(batch, scaled.features(batch)).real.any()


def test_boxes_may_be_left_out_in_testing(batch: Batch) -> None:
    detector = build("fast_rcnn", "model.box_outputs=false").eval()
    torch.nn.init.normal_(detector.head.box.weight)
    found = detector.detect(batch)
    for boxes, real, proposals in zip(found.boxes, found.real, batch.proposals.boxes, strict=True):
        assert torch.cdist(boxes[real], proposals.clamp(max=64)).min(1).values.max() < 1e-3


def test_training_for_classes_alone(batch: Batch) -> None:
    detector = build("fast_rcnn", "model.criterion.box_weight=0").train()
    losses = detector.loss(batch)
    assert losses["loss_box"].item() == 0
    sum(losses.values()).backward()
    assert detector.head.box.weight.grad.abs().max() == 0


def test_sizes_of_training_are_drawn_by_batch(batch: Batch) -> None:
    detector = build("sppnet", "model.train_sizes=[1.0, 0.5]").train()
    sizes = {detector.resized(batch._replace(keys=torch.tensor([k, 0]))).canvas for k in range(12)}
    assert sizes == {(64, 64), (32, 32)}
    assert all(v.isfinite() for v in detector.loss(batch._replace(keys=torch.tensor([1, 2]))).values())
    with pytest.raises(Exception, match=r"model.train_sizes=\[0\]"):
        build("sppnet", "model.train_sizes=[0]")


def test_frozen_convs_stay_bit_for_bit(batch: Batch) -> None:
    detector = build("sppnet", "model.backbone.frozen_stages=5").train()
    before = {name: value.clone() for name, value in detector.backbone.state_dict().items()}
    assert not any(map_.requires_grad for map_ in detector.features(batch).values())
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    sum(detector.loss(batch).values()).backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in detector.backbone.state_dict().items())
    assert all(p.grad is not None for name, p in detector.named_parameters() if not name.startswith("backbone"))


@pytest.mark.parametrize(
    ("overrides", "width"),
    [
        (["model=fast_rcnn", "model/neck=none", "model/backbone=vgg16"], 4096),
        (["model=fast_rcnn", "model/neck=none", "model/backbone=resnet50"], 2048),
        (["model=fast_rcnn", "model/backbone=resnet50"], 1024),
        (["model=sppnet"], 4096),
        (["model=rcnn", "model/backbone=vgg16"], 4096),
        (["model=rcnn", "model/backbone=resnet101"], 2048),
    ],
)
def test_heads_of_the_papers(overrides: list[str], width: int) -> None:
    """Features that stages may cache have at most 4096 values."""
    with torch.device("meta"):
        detector = build_detector(overrides, num_classes=20)
    assert detector.head.width == width
    assert detector.head.cls.in_features == width
    assert detector.head.box.out_features == 80


@pytest.mark.parametrize(("grids", "values"), [("[4, 2, 1]", 21), ("[6, 3, 2, 1]", 50)])
def test_sppnets_vector(grids: str, values: int) -> None:
    with torch.device("meta"):
        detector = build_detector(["model=sppnet", f"model.pool.grids={grids}"], num_classes=20)
    assert detector.head.body[1].in_features == 256 * values  # ZF-5's conv5 has 256 channels, too: 5,376 and 12,800


def test_small_crops_for_fc6_are_refused() -> None:
    with pytest.raises(
        Exception, match=r"model.pool.crop=64 gives a map of 4 x 4, too small .*use model.pool.crop=224"
    ):
        build_detector(["model=rcnn", "model/backbone=vgg16", "model.pool.crop=64"], num_classes=3)


def test_a_pool_that_cuts_no_crops_is_refused() -> None:
    detector = build_detector(["model=rcnn", "model/backbone=resnet18"], num_classes=3)
    detector.head.pool = RoIAlign(levels=detector.pooled_levels(), size=7)
    with pytest.raises(ValueError, match=r"R-CNN cuts its RoIs from the image; use model/pool=warp"):
        detector._check_head()


def test_crops_in_parts_are_the_same(batch: Batch) -> None:
    whole, parts = (build("rcnn", f"model.chunk={n}").eval() for n in (256, 5))
    parts.load_state_dict(whole.state_dict())
    with torch.no_grad():
        found = [d.roi_features(batch, batch.proposals.boxes, batch.proposals.real) for d in (whole, parts)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)
