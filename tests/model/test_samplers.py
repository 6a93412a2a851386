"""Sampling: counts, keyed draws, hard negatives."""

import pytest
import torch

from detlab.model.matchers import IGNORED, NEGATIVE, POSITIVE
from detlab.model.samplers import AllSampler, HardNegativeSampler, OHEMSampler, RandomSampler, draw


def state_of(positives: int, negatives: int, ignored: int = 0) -> torch.Tensor:
    row = [POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORED] * ignored
    return torch.tensor([row], dtype=torch.int8)


@pytest.mark.parametrize(
    ("positives", "negatives", "chosen"),
    [(100, 900, (64, 192)), (10, 900, (10, 246)), (0, 900, (0, 256)), (10, 50, (10, 50)), (900, 20, (64, 20))],
)
def test_numbers_of_random_sampling(positives: int, negatives: int, chosen: tuple[int, int]) -> None:
    state = state_of(positives, negatives, ignored=7)
    draws = draw(torch.tensor([3]), 0, state.shape[1])
    found = RandomSampler(size=256, positive_fraction=0.25)(state, torch.zeros_like(draws), draws)
    assert (int((found & (state == POSITIVE)).sum()), int((found & (state == NEGATIVE)).sum())) == chosen
    assert not (found & (state == IGNORED)).any()


def test_draws_belong_to_the_image_and_not_to_its_place() -> None:
    keys = torch.tensor([11, 22, 33])
    together = draw(keys, 1, 50)
    assert torch.equal(together[1:2], draw(keys[1:2], 1, 50))
    assert torch.equal(together[:, :20], draw(keys, 1, 20))
    assert not torch.equal(together, draw(keys, 2, 50))


def test_draws_are_uniform_and_uncorrelated() -> None:
    x = draw(torch.arange(200), 0, 500)
    assert x.min() >= 0
    assert x.max() < 1
    counts = torch.histc(x, 20, 0, 1)
    expected = x.numel() / 20
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 43.8  # 99.9 % of chi-square with 19 degrees of freedom
    assert abs(torch.corrcoef(torch.stack([x[:, :-1].flatten(), x[:, 1:].flatten()]))[0, 1]) < 0.01
    assert abs(torch.corrcoef(torch.stack([x[:-1].flatten(), x[1:].flatten()]))[0, 1]) < 0.01


def test_every_positive_is_drawn_equally_often() -> None:
    state = state_of(10, 10).expand(2000, -1)
    draws = draw(torch.arange(2000), 0, 20)
    found = RandomSampler(size=8, positive_fraction=0.5)(state, draws, draws)
    share = found[:, :10].float().mean(0)
    assert (share - 0.4).abs().max() < 0.05


def test_hard_negatives_by_hand() -> None:
    losses = torch.tensor([[0.1, 2, 0.5, 0.7, 0.05, 1.2, 0.3, 0.2]])
    state = torch.full((1, 8), NEGATIVE, dtype=torch.int8)
    state[0, 1] = POSITIVE
    found = HardNegativeSampler(ratio=3)(state, losses, losses)
    assert found[0].nonzero().flatten().tolist() == [1, 2, 3, 5]
    assert losses[found].sum().item() == pytest.approx(4.4)


def test_hard_negatives_without_a_positive_are_none() -> None:
    losses = torch.rand(1, 6)
    assert not HardNegativeSampler(ratio=3)(state_of(0, 6), losses, losses).any()


def test_the_hardest_anchors_by_hand() -> None:
    losses = torch.tensor([[0.1, 2, 0.5, 0.7, 9.0, 1.2, 0.3, 0.2]])
    state = torch.full((1, 8), NEGATIVE, dtype=torch.int8)
    state[0, 1], state[0, 4] = POSITIVE, IGNORED
    assert OHEMSampler(size=3)(state, losses, losses)[0].nonzero().flatten().tolist() == [1, 3, 5]
    assert OHEMSampler(size=99)(state, losses, losses).sum() == 7  # all but the ignored


def test_all_but_the_ignored() -> None:
    state = state_of(2, 2, 2)
    assert AllSampler()(state, state, state).tolist() == [[True] * 4 + [False] * 2]


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="model.sampler"):
        RandomSampler(size=0, positive_fraction=0.5)
    with pytest.raises(ValueError, match="model.sampler.size"):
        OHEMSampler(size=0)
    with pytest.raises(ValueError, match="model.sampler.ratio"):
        HardNegativeSampler(ratio=0)
