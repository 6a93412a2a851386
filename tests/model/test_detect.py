"""From scores to boxes: thresholds, top-k, NMS, padding, the way back to the original image."""

from typing import Any

import pytest
import torch
from torchvision.ops import batched_nms

from detlab.model import detect as detection
from detlab.model import nms as suppression
from detlab.model.coders import BoxCoder
from detlab.model.detect import Detect, ProposalDetect, to_original
from detlab.model.nms import kept as kept_of
from detlab.tensors.structures import Batch, Detections
from tests.batches import make_batch

BOXES = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 9], [20, 20, 30, 30]]])
SCORES = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
SIZES = torch.tensor([[100, 100]])


def kept(threshold: float, labels: tuple[int, ...] = (0, 0, 0, 0)) -> list[float]:
    found = Detect(nms_threshold=threshold).suppress(BOXES, SCORES, torch.tensor([labels]))
    return [round(s, 1) for s in found.scores[0][found.real[0]].tolist()]


def test_nms_by_hand() -> None:
    """IoUs 0.5 (strictly above is needed), 0.9, 0.5556."""
    assert kept(0.5) == [0.9, 0.8, 0.6]
    assert kept(0.49) == [0.9, 0.6]
    assert kept(0.9) == [0.9, 0.8, 0.7, 0.6]
    assert kept(0.89) == [0.9, 0.8, 0.6]
    assert kept(0.5, (0, 1, 0, 0)) == [0.9, 0.8, 0.6]


def detect(scores: torch.Tensor, deltas: torch.Tensor | None = None, **options: Any) -> Detections:
    deltas = torch.zeros(*scores.shape[:2], 4) if deltas is None else deltas
    return Detect(**options)(scores, deltas, BOXES[:, : scores.shape[1]], BoxCoder(), SIZES.expand(len(scores), 2))


def test_scores_must_be_above_the_threshold_and_rows_are_padded() -> None:
    scores = torch.tensor([[[0.05, 0.0], [0.0, 0.3], [0.0, 0.0], [0.06, 0.0]]])
    found = detect(scores, score_threshold=0.05, max_detections=5)
    assert found.labels.tolist() == [[1, 0, -1, -1, -1]]
    assert found.boxes[0, 0].tolist() == [0, 0, 10, 5]
    assert found.scores[0, 2:].tolist() == [0, 0, 0]


def test_one_anchor_may_hold_two_classes() -> None:
    found = detect(torch.tensor([[[0.9, 0.8]]]))
    assert found.labels[0, :2].tolist() == [0, 1]


def test_boxes_per_class_are_decoded_with_their_own_offsets() -> None:
    deltas = torch.zeros(1, 4, 2, 4)
    deltas[0, 3, 1, 0] = 1.0  # class 1 of anchor 3 moves right by its width
    scores = torch.zeros(1, 4, 2)
    scores[0, 3] = torch.tensor([0.5, 0.9])
    found = detect(scores, deltas)
    assert found.boxes[0, :2].tolist() == [[30, 20, 40, 30], [20, 20, 30, 30]]


def test_top_k_is_per_level() -> None:
    scores = torch.tensor([[[0.9], [0.8], [0.7], [0.6]]])
    anchors = BOXES + torch.arange(4).view(1, 4, 1) * 20
    found = Detect(topk=1)(scores, torch.zeros(1, 4, 4), anchors, BoxCoder(), SIZES, counts=[2, 2])
    assert torch.allclose(found.scores[0][found.real[0]], torch.tensor([0.9, 0.7]))


def test_top_k_per_class() -> None:
    """SSD: two candidates of each class, although class 0's third is better than all of class 1."""
    anchors = torch.tensor([[[0.0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]]])
    scores = torch.tensor([[[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]]])
    found = Detect(topk=None, topk_per_class=2)(scores, torch.zeros(1, 3, 4), anchors, BoxCoder(), SIZES)
    assert found.scores[0][found.real[0]].tolist() == pytest.approx([0.9, 0.8, 0.3, 0.2])
    assert found.labels[0][found.real[0]].tolist() == [0, 0, 1, 1]
    assert found.boxes[0, :4, 0].tolist() == [0, 10, 10, 20]
    with pytest.raises(ValueError, match=r"topk=1000 or topk_per_class=2, not both"):
        Detect(topk_per_class=2)


def test_boxes_are_clipped_to_the_image_and_small_ones_dropped() -> None:
    anchors = torch.tensor([[[90.0, 90, 130, 140], [99.5, 0, 130, 40]]])
    found = Detect(min_size=1.0)(torch.full((1, 2, 1), 0.9), torch.zeros(1, 2, 4), anchors, BoxCoder(), SIZES)
    assert found.boxes[0][found.real[0]].tolist() == [[90, 90, 100, 100]]


def test_the_place_in_the_batch_does_not_matter() -> None:
    scores, deltas = torch.rand(3, 60, 4), torch.randn(3, 60, 4) * 0.2
    low = torch.rand(1, 60, 2) * 60
    anchors = torch.cat([low, low + 20], dim=2)
    sizes = torch.tensor([[100, 80], [50, 90], [70, 70]])
    whole = Detect()(scores, deltas, anchors, BoxCoder(), sizes)
    order = [2, 0, 1]
    shuffled = Detect()(scores[order], deltas[order], anchors, BoxCoder(), sizes[order])
    assert all(torch.equal(a[order], b) for a, b in zip(whole, shuffled, strict=True))


@pytest.mark.parametrize("crowded", [False, True])
def test_the_best_few_decide_if_they_keep_enough(crowded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    count, most = 600, 10
    corner = torch.rand(count, 2, generator=g) * 200
    if crowded:  # the best 300 are one object: only the rest holds others
        corner[:300] = torch.rand(300, 2, generator=g)
    boxes = torch.cat([corner, corner + 30], 1)
    scores = torch.linspace(1, 0.1, count)
    labels = torch.randint(0, 2, (count,), generator=g)
    looked_at = []
    monkeypatch.setattr(suppression, "kept", lambda b, *rest: looked_at.append(len(b)) or kept_of(b, *rest))
    keep = suppression.first_kept(boxes, scores, labels, 0.5, most)
    assert keep.tolist() == batched_nms(boxes, scores, labels, 0.5)[:most].tolist()
    assert looked_at == ([80, 600] if crowded else [80])


def test_suppressing_before_regressing() -> None:
    """Two proposals apart, IoU 0, are regressed onto one box: R-CNN's order keeps both, the usual order one."""
    references = torch.tensor([[[0.0, 0, 10, 10], [10, 0, 20, 10]]])
    deltas = torch.tensor([[[0.5, 0, 0, 0], [-0.5, 0, 0, 0]]])  # both to (5, 0, 15, 10)
    scores = torch.tensor([[[0.9], [0.8]]])
    for nms_first, count in ((True, 2), (False, 1)):
        found = Detect(nms_first=nms_first)(scores, deltas, references, BoxCoder(), SIZES)
        assert found.real.sum().item() == count
        assert found.boxes[0, 0].tolist() == [5, 0, 15, 10]


def test_proposals_are_suppressed_within_levels_only() -> None:
    options = {"pre_nms_train": 9, "pre_nms_test": 9, "post_nms_train": 9, "post_nms_test": 2}
    stage = ProposalDetect(**options, nms_threshold=0.7)
    anchors = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]]])
    arguments = (torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, 4), anchors, BoxCoder(), SIZES)
    one_level = stage(*arguments, [3], for_training=True)
    two_levels = stage(*arguments, [2, 1], for_training=True)
    assert torch.allclose(one_level.scores, torch.tensor([[0.9]]))
    assert torch.allclose(two_levels.scores, torch.tensor([[0.9, 0.7]]))
    third = stage(*arguments, [1, 1, 1], for_training=False)
    assert third.scores.shape == (1, 2)  # post_nms_test


def test_proposals_of_unequal_number_are_padded() -> None:
    stage = ProposalDetect(pre_nms_train=9, pre_nms_test=9, post_nms_train=9, post_nms_test=9)
    anchors = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    found = stage(
        torch.tensor([[0.9, 0.8], [0.9, 0.8]]),
        torch.zeros(2, 2, 4),
        anchors,
        BoxCoder(),
        torch.tensor([[100, 100], [40, 40]]),  # the second box lies outside the second image
        [2],
        for_training=True,
    )
    assert found.real.tolist() == [[True, True], [True, False]]


def test_back_to_the_original_image() -> None:
    batch: Batch = make_batch([[]], [[]], side=(64, 96))
    batch = batch._replace(sizes=torch.tensor([[50, 80]]), original_sizes=torch.tensor([[100, 240]]))
    found = to_original(
        Detections(torch.tensor([[[8.0, 5, 80, 50], [70, 40, 95, 60]]]), torch.ones(1, 2), torch.zeros(1, 2)), batch
    )
    assert found.boxes[0].tolist() == [[24, 10, 240, 100], [210, 80, 240, 100]]  # x by 3, y by 2, clipped


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"topk": 20},
        {"topk": None, "max_detections": 7},
        {"topk": None, "topk_per_class": 9, "min_size": 12.0},
        {"nms_first": True, "nms_threshold": 0.3},
    ],
)
@pytest.mark.parametrize("per_class", [False, True])
def test_a_gpu_selects_the_same(options: dict[str, Any], per_class: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images at once, and scored in parts."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 60, 5, generator=g) - 1
    deltas = torch.randn(3, 60, 5, 4, generator=g) * 0.2 if per_class else torch.randn(3, 60, 4, generator=g) * 0.2
    low = torch.rand(1, 60, 2, generator=g) * 60
    anchors = torch.cat([low, low + 20], dim=2)
    sizes = torch.tensor([[100, 80], [50, 90], [70, 70]])
    arguments = deltas, anchors, BoxCoder(), sizes, [50, 10]
    on_cpu = Detect(**options)(logits.sigmoid(), *arguments)
    monkeypatch.setattr(detection, "at_once", lambda x: True)
    monkeypatch.setattr(detection, "LARGEST_PART", 700)  # two images of 300 scores
    at_once = Detect(**options)(logits, *arguments, lambda own, images: own.sigmoid())
    assert on_cpu.real.any(1).all()
    assert torch.equal(on_cpu.boxes, at_once.boxes)
    assert torch.equal(on_cpu.labels, at_once.labels)
    torch.testing.assert_close(on_cpu.scores, at_once.scores, rtol=1e-6, atol=0)  # sigmoids of parts round otherwise


@pytest.mark.parametrize("pre_nms", [8, 500])
def test_a_gpu_proposes_the_same(pre_nms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    low = torch.rand(1, 90, 2, generator=g) * 60
    anchors = torch.cat([low, low + 15 + 20 * torch.rand(1, 90, 2, generator=g)], dim=2)
    arguments = torch.rand(2, 90, generator=g), torch.randn(2, 90, 4, generator=g) * 0.1, anchors, BoxCoder()
    stage = ProposalDetect(pre_nms_train=pre_nms, pre_nms_test=9, post_nms_train=20, post_nms_test=9, min_size=10)
    sizes = torch.tensor([[70, 80], [40, 50]])
    on_cpu = stage(*arguments, sizes, [60, 27, 3], for_training=True)
    monkeypatch.setattr(detection, "at_once", lambda x: True)
    at_once = stage(*arguments, sizes, [60, 27, 3], for_training=True)
    shared = on_cpu.scores.shape[1]  # on a GPU there are as many rows as candidates, up to post_nms
    assert torch.equal(on_cpu.boxes, at_once.boxes[:, :shared])
    assert torch.equal(on_cpu.scores, at_once.scores[:, :shared])
    assert not at_once.real[:, shared:].any()
