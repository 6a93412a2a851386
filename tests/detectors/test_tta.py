"""Views of a batch and their way back: a box found in any view is the same box in the image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import detlab
from detlab.config.compose import config_dir
from detlab.detectors import TTA
from detlab.detectors.tta import flip_boxes, flipped, scaled
from detlab.errors import ConfigError
from detlab.model.detect import Detect
from detlab.tensors.structures import Batch, Detections, Proposals
from tests.batches import make_batch


class FindsBright(nn.Module):
    """Finds the bounding box of the red pixels of each image: what it gives must follow any view."""

    selection = Detect(nms_threshold=0.5, max_detections=3)

    def detect(self, batch: Batch) -> Detections:
        boxes = []
        for image in batch.images:
            rows, columns = (image[0] > 127).nonzero().unbind(1)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        found = torch.tensor(boxes, dtype=torch.float32)[:, None]
        return Detections(found, torch.full(found.shape[:2], 0.5), torch.zeros(found.shape[:2], dtype=torch.long))


@pytest.fixture
def marked() -> Batch:
    """A 96x128 canvas whose images are smaller, each with one red rectangle."""
    batch = make_batch([[], []], [[], []], side=(96, 128))
    images = torch.zeros_like(batch.images)
    images[0, 0, 16:48, 8:40] = 255
    images[1, 0, 32:64, 48:80] = 255
    sizes = torch.tensor([[96, 100], [80, 128]])
    return batch._replace(images=images, sizes=sizes, original_sizes=sizes)


def test_every_view_leads_back_to_the_same_box(marked: Batch) -> None:
    expected = torch.tensor([[8.0, 16, 40, 48], [48, 32, 80, 64]])
    for scales, flip in (([1.0], True), ([0.5], False), ([2.0], True), ([0.7], True)):
        found = TTA(FindsBright(), scales=scales, flip=flip).detect(marked)
        assert found.real.sum(1).tolist() == [1, 1], (scales, flip)
        torch.testing.assert_close(found.boxes[:, 0], expected, atol=1.0, rtol=0)


def test_views_that_disagree_are_both_kept_and_those_that_agree_are_merged(marked: Batch) -> None:
    class FindsLeft(FindsBright):
        def detect(self, batch: Batch) -> Detections:
            boxes = torch.tensor([[[0.0, 0, 20, 20]]] * 2)
            return Detections(boxes, torch.tensor([[0.9]] * 2), torch.zeros(2, 1, dtype=torch.long))

    found = TTA(FindsLeft(), scales=[1.0], flip=True).detect(marked)
    assert found.boxes[0, :2].tolist() == [[0, 0, 20, 20], [80, 0, 100, 20]]
    assert found.boxes.shape == (2, 3, 4)
    assert TTA(FindsLeft(), scales=[1.0, 1.0]).detect(marked).real.sum().item() == 2
    assert TTA(FindsLeft(), flip=True, max_detections=1).detect(marked).boxes.shape == (2, 1, 4)


def test_mirroring_twice_gives_the_batch_back(marked: Batch) -> None:
    boxes = torch.tensor([[[10.0, 5, 30, 20]], [[0, 0, 128, 80]]])
    batch = marked._replace(proposals=Proposals(boxes, torch.ones(2, 1)))
    once = flipped(batch)
    assert once.proposals.boxes.tolist() == [[[70, 5, 90, 20]], [[0, 0, 128, 80]]]
    assert torch.equal(flipped(once).images, batch.images)
    assert torch.equal(flip_boxes(once.proposals.boxes, batch.sizes), boxes)


def test_a_scaled_batch_has_exactly_that_scale_and_is_padded_to_the_divisor(marked: Batch) -> None:
    view = scaled(marked._replace(proposals=Proposals(torch.full((2, 1, 4), 32.0), torch.ones(2, 1))), 1.25, 32)
    assert view.canvas == (128, 160)
    assert view.sizes.tolist() == [[120, 125], [100, 160]]
    assert view.proposals.boxes[0, 0].tolist() == [40, 40, 40, 40]
    assert view.images.dtype == torch.uint8
    assert not view.images[:, :, 120:].any()
    assert view.images[0, 0, 21:59, 11:49].min() == 255


def test_a_canvas_no_larger_than_the_divisor_is_scaled_too() -> None:
    """Not rounded to the divisor, which left 64 px as they were at 0.75 and made a square of (64, 96) at 0.75."""
    for side in ((64, 64), (64, 96)):
        batch = make_batch([[]], [[]], side=side)
        images = torch.zeros_like(batch.images)
        images[0, 0, 16:48, 8:56] = 255
        view = scaled(batch._replace(images=images), 0.75, 32)
        assert view.sizes.tolist() == [[48, side[1] * 3 // 4]]
        assert view.canvas == (64, 64 if side[1] == 64 else 96)
        red = view.images[0, 0] > 127
        assert red[12:36, 6:42].all()
        assert red.sum() == 24 * 36
        expected = torch.tensor([8.0, 16, 56, 48])
        for scale in (0.75, 1.5, 0.6):
            found = TTA(FindsBright(), scales=[scale]).detect(batch._replace(images=images))
            torch.testing.assert_close(found.boxes[0, 0], expected, atol=1.0, rtol=0)


def test_the_image_as_it_is_gives_the_detectors_own_boxes(small_batch: Batch) -> None:
    detector = detlab.build_detector(["model=retinanet", "model.detect.score_threshold=0.0"], num_classes=3).eval()
    with torch.no_grad():
        alone, merged = detector.detect(small_batch), TTA(detector).detect(small_batch)
    assert not TTA(detector).active
    torch.testing.assert_close(merged.scores, alone.scores)
    torch.testing.assert_close(merged.boxes, alone.boxes)


FAMILIES = {  # and what makes them small
    "rpn": [],
    "retinanet": [],
    "ssd": ["data.size=96"],
    "refinedet": ["data.size=96"],
    "faster_rcnn": [],
    "fast_rcnn": [],
    "sppnet": [],
    "rcnn": ["model.pool.crop=48", "model.pool.context=4"],
    "yolo": ["model.neck.widths=[16, 16, 16]"],
    "yolov2": ["model.neck.width=32", "model.head.width=32"],
    "yolov1": ["model.head.width=8", "data.size=96"],  # rules refuse it views of other sizes
}


def test_no_family_is_forgotten() -> None:
    assert set(FAMILIES) == {f.stem for f in (config_dir() / "model").glob("*.yaml")}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    """Also at canvases smaller than those trained on, where SSD's last maps have no room."""
    detector = detlab.build_detector([f"model={family}", *FAMILIES[family]], num_classes=3).eval()
    batch = make_batch([[[4, 4, 36, 30]], [[8, 10, 40, 50]]], [[0], [1]], side=96)
    batch = batch._replace(proposals=Proposals(torch.tensor([[[4.0, 4, 40, 40]]] * 2), torch.ones(2, 1)))
    scales = [1.0] if family == "yolov1" else [0.5, 1.0, 1.5]
    found = TTA(detector, scales=scales, flip=True).detect(batch)
    assert found.boxes.shape[1] == detector.selection.max_detections
    assert (found.boxes >= 0).all()
    assert (found.boxes <= 96).all()


def test_no_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tta.scales=\[0\] needs positive factors"):
        TTA(FindsBright(), scales=[0])


def test_a_detector_that_selects_in_its_own_way_needs_the_options_of_the_merge(marked: Batch) -> None:
    class SelectsItself(FindsBright):
        selection = None

    with pytest.raises(ConfigError, match=r"SelectsItself has no selection .* set both tta.nms_threshold=0.5 and"):
        TTA(SelectsItself(), flip=True, nms_threshold=0.5)
    found = TTA(SelectsItself(), flip=True, nms_threshold=0.5, max_detections=7).detect(marked)
    assert found.boxes.shape[1] == 7
    assert not TTA(SelectsItself()).active
