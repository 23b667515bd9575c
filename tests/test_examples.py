"""The examples: each runs, draws its picture, and shows what it says."""

import pytest

from examples import cartpole, descent, least_squares, logistic, lr_free, mnist, transfer


@pytest.fixture
def shown(tmp_path):
    def run(example):
        png = tmp_path / "x.png"
        found = example.run(str(png))
        assert png.read_bytes().startswith(b"\x89PNG")
        assert png.stat().st_size > 15_000
        return found

    return run


def test_descent(shown):
    found = shown(descent)
    assert found["bound 2/L"] == pytest.approx(1, rel=1e-6)
    assert abs(found["w after 15 steps, good"]) < 1e-4
    assert 2 < found["w after 15 steps, small"] < 5
    assert abs(found["w after 15 steps, large"]) > 5


def test_least_squares_diverges_where_the_bound_says(shown):
    found = shown(least_squares)
    assert found["ratio"] == pytest.approx(1, abs=0.01)
    assert found["2/L"] == pytest.approx(found["2/L in closed form"], rel=1e-6)


def test_logistic_regression_oscillates_where_the_curvature_says(shown):
    found = shown(logistic)
    assert found["ratio"] == pytest.approx(1, abs=0.02)
    assert found["measured"] > found["closed form"]


def test_mnist(shown):
    found = shown(mnist)
    assert found["test accuracy"] > 0.92
    assert found["diagnosis"] == "healthy"


def test_lower_rates_for_pretrained_layers_beat_a_global_one_that_was_searched_as_long(shown):
    found = shown(transfer)
    assert found["gain of the pair"] > 0.01
    assert found["accuracy, one rate"] > found["accuracy, not pretrained"] + 0.05


def test_the_agent_balances_the_pole(shown):
    assert shown(cartpole)["mean return of the last 100"] >= 195


def test_rules_without_a_rate_are_within_a_point_of_searched_adam(shown):
    found = shown(lr_free)
    adam = next(x for name, x in found.items() if "Adam, searched" in name)
    for name in ("Prodigy", "D-Adapt Adam", "D-Adapt SGD", "DoG", "L-DoG", "AdGD"):
        assert found[f"test accuracy, {name}"] > adam - 0.01
