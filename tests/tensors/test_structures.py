"""Padded tensors keep what they promise."""

import pytest
import torch

from detlab.tensors.structures import Batch, Detections, Level, Proposals


@pytest.mark.parametrize(
    ("stride", "canvas", "size"),
    [(8, (800, 1333), (100, 167)), (128, (800, 800), (7, 7)), (16, (600, 1000), (38, 63)), (64, (800, 800), (13, 13))],
)
def test_a_map_is_the_ceiling_of_side_over_stride(stride: int, canvas: tuple, size: tuple) -> None:
    assert Level("P", 1, stride).size(canvas) == size


def test_padding_rows_are_not_real(small_batch: Batch) -> None:
    assert small_batch.targets.real.tolist() == [[True, True], [True, False]]
    assert Proposals(torch.zeros(1, 2, 4), torch.tensor([[0.0, -1]])).real.tolist() == [[True, False]]
    labels = torch.tensor([[0, -1]])
    assert Detections(torch.zeros(1, 2, 4), torch.zeros(1, 2), labels).real.tolist() == [[True, False]]


def test_a_batch_moves_with_all_its_parts(small_batch: Batch) -> None:
    moved = small_batch.to("meta")
    assert moved.images.device.type == moved.targets.boxes.device.type == moved.ids.device.type == "meta"
    assert moved.proposals.boxes.device.type == "meta"
    assert small_batch._replace(proposals=None).to("meta").proposals is None
    assert moved.canvas == (64, 64)


def test_draws_follow_image_ids_unless_keys_are_given(small_batch: Batch) -> None:
    assert small_batch.draw_keys.tolist() == [1, 2]
    assert small_batch._replace(keys=torch.tensor([7, 8])).draw_keys.tolist() == [7, 8]


def test_a_loss_without_targets_is_one_sentence(small_batch: Batch) -> None:
    assert small_batch.truth is small_batch.targets
    with pytest.raises(ValueError, match="no targets, and a loss needs them"):
        _ = small_batch._replace(targets=None).truth
