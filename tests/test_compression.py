"""Amplification and the neurons' own quantities: limits, invariances and bad input."""

import math

import pytest
import torch

from geocompress import compression, networks


def test_lambda_is_one_at_initialisation():
    values = [compression.amplification(networks.OneHidden(d=6, width=4000).init(seed), 2) for seed in range(5)]
    # each of the two mean squares has a relative deviation of √(2/n); λ is the root of their ratio
    deviation = 0.5 * math.sqrt(2 / 8000 + 2 / 16000)
    assert all(abs(value - 1) < 4 * deviation for value in values)


def test_lambda_reads_an_imposed_compression():
    params = networks.OneHidden(d=5, width=7).init(0)
    before = compression.amplification(params, 1)
    params["omega"][:, 1:] /= 9
    assert compression.amplification(params, 1) == pytest.approx(9 * before)
    params["omega"][:, 1:] = 0
    assert compression.amplification(params, 1) == math.inf


@pytest.mark.parametrize("d_parallel", [0, 5, 6])
def test_lambda_needs_two_blocks(d_parallel):
    with pytest.raises(ValueError, match="expected 1 ≤ d_parallel < d = 5"):
        compression.amplification(networks.OneHidden(d=5, width=3).init(0), d_parallel)


@pytest.mark.parametrize("d_parallel", [0, 5])
def test_the_lambda_of_each_neuron_needs_two_blocks_too(d_parallel):
    with pytest.raises(ValueError, match="expected 1 ≤ d_parallel"):
        compression.neuron_amplification(networks.OneHidden(d=5, width=3).init(0), d_parallel)


def test_fitted_fraction_counts_points_on_the_margin():
    assert compression.fitted_fraction(torch.tensor([0.9, 1 - 1e-4, 1.0, 7.0])) == 0.75


def test_class_gap_is_one_when_only_one_label_is_fitted():
    y = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
    assert compression.class_gap(torch.where(y > 0, 2.0, 0.0), y) == 1
    assert compression.class_gap(torch.where(y > 0, 0.0, 2.0), y) == 1
    assert compression.class_gap(torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0, 0.0]), y) == 0
    assert compression.class_gap(torch.tensor([1.0, 0.0, 1.0, 0.5, 1.0, 0.0]), y) == 0.75


def test_neurons_in_the_plane():
    params = {
        "omega": torch.tensor([[3.0, 4.0, 0.0]]),
        "b": torch.tensor([2.0]),
        "beta": torch.tensor([-2.0]),
    }
    torch.testing.assert_close(compression.neuron_plane(params), torch.tensor([[-6.0, -8.0]]))
    torch.testing.assert_close(compression.balance(params), torch.tensor([25.0]))
    torch.testing.assert_close(compression.neuron_threshold(params), torch.tensor([-2 * math.sqrt(3) / 3]))
    torch.testing.assert_close(compression.neuron_amplification(params, 1), torch.tensor([3 / math.sqrt(8)]))
