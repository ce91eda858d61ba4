import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint import holes, losses


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_hole(count: int, size: int, seed: int = 0) -> Tensor:
    return rand(count, 1, size, size, seed=100 + seed) < 0.3


def by_hand(prediction: Tensor, truth: Tensor, weights: Tensor, counted: int, distance: str) -> float:
    """Pixel by pixel, on the [-1, 1] scale."""
    total = 0.0
    for b, c, y, x in np.ndindex(*prediction.shape):
        error = (2 * float(prediction[b, c, y, x]) - 1) - (2 * float(truth[b, c, y, x]) - 1)
        total += float(weights[b, 0, y, x]) * (error**2 if distance == "l2" else abs(error))
    return total / counted


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_reconstruction_is_the_mean_over_hidden_values(distance: str) -> None:
    prediction, truth, hole = rand(2, 3, 5, 4), rand(2, 3, 5, 4, seed=1), random_hole(2, 5)[..., :4]
    expected = by_hand(prediction, truth, hole, 3 * int(hole.sum()), distance)
    assert float(losses.reconstruction_loss(prediction, truth, hole, distance=distance)) == pytest.approx(expected)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("weight", [10.0, 0.0, 2.5])
def test_the_band_counts_that_many_times_and_is_not_renormalised(distance: str, weight: float) -> None:
    prediction, truth, hole = rand(2, 3, 9, 9), rand(2, 3, 9, 9, seed=1), holes.draw("centre", 2, 9, torch.Generator())
    band = holes.band(hole, 2)
    weights = hole.double() + weight * band.double()
    expected = by_hand(prediction, truth, weights, 3 * int((hole | band).sum()), distance)
    found = losses.reconstruction_loss(prediction, truth, hole, band, weight, distance)
    assert float(found) == pytest.approx(expected)


def test_a_centre_hole_with_a_band_is_the_released_formula() -> None:
    # train.lua on a 4 x 4 target: mean squared error over all of it on [-1, 1], the outer ring of one pixel ten times.
    prediction, truth = torch.full((1, 3, 6, 6), 0.5), torch.full((1, 3, 6, 6), 0.75)
    hole, target = torch.zeros(2, 1, 1, 6, 6, dtype=torch.bool)
    hole[..., 2:4, 2:4], target[..., 1:5, 1:5] = True, True
    found = losses.reconstruction_loss(prediction, truth, hole, target & ~hole, 10.0)
    # error (0.75 - 0.5) * 2 = 0.5, squared 0.25; 4 inner pixels once and 12 outer ones ten times, of 16
    assert float(found) == pytest.approx(0.25 * (4 + 12 * 10) / 16)


def test_visible_predictions_change_nothing_and_get_no_gradient() -> None:
    prediction, truth, hole = rand(2, 3, 8, 8).requires_grad_(), rand(2, 3, 8, 8, seed=1), random_hole(2, 8)
    band = holes.band(hole, 1) & (rand(2, 1, 8, 8, seed=5) < 0.5)  # leaves some visible pixels out
    counted = (hole | band).expand_as(truth)
    loss = losses.reconstruction_loss(prediction, truth, hole, band)
    loss.backward()
    assert prediction.grad is not None
    assert (prediction.grad[~counted] == 0).all()
    assert (prediction.grad[counted] != 0).all()
    changed = torch.where(counted, prediction, rand(2, 3, 8, 8, seed=9))
    assert torch.equal(losses.reconstruction_loss(changed, truth, hole, band), loss)


def test_nothing_hidden_costs_nothing() -> None:
    prediction, truth, hole = rand(1, 3, 4, 4), rand(1, 3, 4, 4, seed=1), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert losses.reconstruction_loss(prediction, truth, hole) == 0
    assert losses.reconstruction_loss(prediction, truth, hole, hole) == 0
    assert losses.hidden_error(prediction, truth, hole) == 0


def test_hidden_error_is_a_quarter_of_the_l2_loss() -> None:
    prediction, truth, hole = rand(2, 3, 8, 8), rand(2, 3, 8, 8, seed=1), random_hole(2, 8)
    error = losses.hidden_error(prediction, truth, hole)
    assert float(error) == pytest.approx(float(losses.reconstruction_loss(prediction, truth, hole)) / 4)
    hidden = hole.expand_as(truth)
    torch.testing.assert_close(error, functional.mse_loss(prediction[hidden], truth[hidden]))


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_the_adversarial_pair_is_cross_entropy_by_hand() -> None:
    real, generated = [2.0, -1.0], [0.5, -3.0, 1.0]
    # -log sigmoid(x) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x); means, added and not halved
    expected = sum(softplus(-x) for x in real) / 2 + sum(softplus(x) for x in generated) / 3
    found = losses.discriminator_loss(torch.tensor(real), torch.tensor(generated))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert float(losses.generator_loss(torch.tensor(generated))) == pytest.approx(
        sum(softplus(-x) for x in generated) / 3, rel=1e-6
    )


def test_an_undecided_discriminator_costs_log_two_a_half() -> None:
    zeros = torch.zeros(4)
    assert float(losses.discriminator_loss(zeros, zeros)) == pytest.approx(2 * math.log(2))
    assert float(losses.generator_loss(zeros)) == pytest.approx(math.log(2))


def test_the_generator_still_has_a_gradient_where_it_is_found_out() -> None:
    logits = torch.tensor([-30.0], requires_grad=True)
    losses.generator_loss(logits).backward()
    assert logits.grad is not None
    assert float(logits.grad) == pytest.approx(-1)  # the saturating form has 1e-13 here


def test_multilabel_loss_leaves_out_what_is_not_counted() -> None:
    from sklearn.metrics import log_loss

    logits = 6 * rand(5, 4) - 3
    labels = torch.tensor([[0, 1, 255, 0], [1, 1, 0, 255], [255] * 4, [0, 0, 0, 1], [1, 255, 1, 0]])
    counted = labels != 255
    expected = log_loss(labels[counted].numpy(), torch.sigmoid(logits[counted]).numpy(), labels=[0, 1])
    assert float(losses.multilabel_loss(logits, labels)) == pytest.approx(expected)


def test_uncounted_labels_get_no_gradient() -> None:
    logits = rand(2, 3).requires_grad_()
    losses.multilabel_loss(logits, torch.tensor([[1, 255, 0], [255, 255, 1]])).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True, False, True], [False, False, True]]
    nothing = losses.multilabel_loss(logits, torch.full((2, 3), 255))
    assert nothing == 0
