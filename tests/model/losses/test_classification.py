"""Classification losses against worked values."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from detlab.model.losses import BCELoss, ClassificationLoss, CrossEntropyLoss, FocalLoss, HingeLoss, focal

LOGITS = [-2.0, -1.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("positive", "alpha", "gamma", "values"),
    [
        (True, 0.25, 2, [0.412520, 0.175467, 0.043322, 0.005665, 0.000451]),
        (False, 0.25, 2, [0.001353, 0.016994, 0.129965, 0.526401, 1.237559]),
        (True, -1, 2, [1.650078, 0.701868, 0.173287, 0.022658, 0.001804]),
        (True, 0.25, 0, [0.531732, 0.328315, 0.173287, 0.078315, 0.031732]),
        (True, -1, 0, [2.126928, 1.313262, 0.693147, 0.313262, 0.126928]),
        (True, 0.75, 1, [1.405044, 0.720053, 0.259930, 0.063187, 0.011348]),
    ],
)
def test_focal_table(positive: bool, alpha: float, gamma: float, values: list[float]) -> None:
    labels = torch.full((5,), 0 if positive else 1)
    found = FocalLoss(alpha=alpha, gamma=gamma)(torch.tensor(LOGITS)[:, None], labels)
    torch.testing.assert_close(found, torch.tensor(values), atol=2e-6, rtol=0)


def test_focal_of_two_anchors() -> None:
    logits = torch.tensor([[2.0, -1, 0], [-3, 0.5, 1]])
    assert FocalLoss()(logits, torch.tensor([0, 2])).sum().item() == pytest.approx(0.436215, abs=1e-5)


def test_focal_gradient() -> None:
    logits = torch.tensor([[2.0], [-2.0]], requires_grad=True)
    FocalLoss()(logits, torch.tensor([0, 1])).sum().backward()
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([-0.0012, 0.0037]), atol=5e-5, rtol=0)


def test_focal_equals_torchvisions() -> None:
    logits, labels = torch.randn(200, 7) * 4, torch.randint(0, 8, (200,))
    targets = torch.nn.functional.one_hot(labels, 8)[:, :7].float()
    expected = sigmoid_focal_loss(logits, targets, 0.25, 2).sum(1)
    torch.testing.assert_close(FocalLoss()(logits, labels), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.3])
@pytest.mark.parametrize("alpha", [-1.0, 0.25])
def test_focal_gradient_is_the_derivative(alpha: float, gamma: float) -> None:
    logits = (torch.randn(20, 5, dtype=torch.float64) * 3).requires_grad_()
    labels = torch.randint(0, 6, (20,))
    assert torch.autograd.gradcheck(lambda x: FocalLoss(alpha=alpha, gamma=gamma)(x, labels), logits)


def test_focal_in_parts_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.randn(2, 50, 7, requires_grad=True), torch.randint(0, 8, (2, 50))
    whole = FocalLoss()(logits, labels)
    (gradient,) = torch.autograd.grad(whole.sum(), logits)
    monkeypatch.setattr(focal, "CACHED", 7 * 9)  # nine rows a part, the last with one
    parts = FocalLoss()(logits, labels)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), logits)[0], gradient)


def test_focal_gradient_is_finite_where_a_power_of_zero_is_not() -> None:
    logits = torch.tensor([[60.0], [-60.0], [1e4]], requires_grad=True)
    FocalLoss(gamma=0.5)(logits, torch.tensor([0, 1, 0])).sum().backward()
    assert logits.grad.isfinite().all()


def test_losses_of_an_untrained_retinanet_on_800() -> None:
    """120,087 anchors and 80 classes at the prior 0.01: focal sums to 7.24, cross entropy to 96,553."""
    count = 120_087 * 80
    logit = FocalLoss().prior_bias(0.01, 1)[None]
    assert logit.item() == pytest.approx(-4.595, abs=1e-3)
    negative = torch.tensor([1])
    assert count * FocalLoss(alpha=-1)(logit, negative).item() * 0.75 == pytest.approx(7.2415, rel=1e-3)
    assert count * BCELoss()(logit, negative).item() == pytest.approx(96_553, rel=1e-4)


def test_bce_and_cross_entropy_by_hand() -> None:
    assert BCELoss()(torch.tensor([[2.0, -1, 0.5]]), torch.tensor([0])).item() / 3 == pytest.approx(0.471422, abs=1e-5)
    logits = torch.tensor([[2.0, 1, -1], [0, 0, 0], [-1, 3, 1]])
    assert CrossEntropyLoss()(logits, torch.tensor([0, 2, 1])).mean().item() == pytest.approx(0.530185, abs=1e-5)


@pytest.mark.parametrize("classes", [20, 80, 90])
def test_uniform_softmax(classes: int) -> None:
    loss = CrossEntropyLoss()
    logits = torch.zeros(2, 3, loss.outputs(classes))
    labels = torch.full((2, 3), classes)
    torch.testing.assert_close(loss(logits, labels), torch.full((2, 3), math.log(classes + 1)))


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), BCELoss(), FocalLoss()])
@pytest.mark.parametrize("classes", [1, 3, 80])
def test_prior_bias_gives_foreground_its_prior(loss: ClassificationLoss, classes: int) -> None:
    bias = loss.prior_bias(0.01, classes)
    assert len(bias) == loss.outputs(classes)
    scores = loss.scores(bias[None])
    assert scores.shape == (1, classes)
    each = scores if not isinstance(loss, CrossEntropyLoss) else scores.sum(1)
    torch.testing.assert_close(each, torch.full_like(each, 0.01), rtol=1e-3, atol=0)


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), BCELoss(), FocalLoss()])
def test_loss_falls_as_the_right_class_rises(loss: ClassificationLoss) -> None:
    logits = torch.zeros(4, loss.outputs(3))
    labels = torch.tensor([0, 1, 2, 3])
    better = logits.clone()
    for row, label in enumerate(labels.tolist()):
        if label < better.shape[1]:
            better[row, label] += 2
        else:
            better[row] -= 2
    assert (loss(better, labels) < loss(logits, labels)).all()


def test_wrong_exponents_are_refused() -> None:
    with pytest.raises(ValueError, match="model.cls_loss"):
        FocalLoss(gamma=-1)


def test_hinge_by_hand() -> None:
    """Margins (2, -0.5) for class 0: 0 + (1 - 0.5); (0.25, -3) for background: 1.25 + 0."""
    loss, logits = HingeLoss(), torch.tensor([[2.0, -0.5], [0.25, -3.0]])
    assert loss(logits, torch.tensor([0, 2])).tolist() == [0.5, 1.25]
    assert loss.outputs(2) == 2
    assert loss.scores(torch.zeros(1, 2)).tolist() == [[0.5, 0.5]]
