"""fastlr's rules as optimizers of thinc."""

import numpy as np
import pytest

thinc = pytest.importorskip("thinc.api")

import fastlr  # noqa: E402
from fastlr.thinc import ThincOptimizer  # noqa: E402


def model(seed=0):
    thinc.fix_random_seed(seed)
    built = thinc.chain(thinc.Relu(8, 4), thinc.Softmax(3, 8))
    built.initialize()
    return built


def train(optimizer, steps=60):
    """The losses of a model that learns which of three numbers is the largest."""
    rng, net, losses = np.random.default_rng(0), model(), []
    for _ in range(steps):
        x = rng.standard_normal((64, 4)).astype(np.float32)
        y = np.eye(3, dtype=np.float32)[x[:, :3].argmax(1)]
        guess, back = net.begin_update(x)
        back((guess - y) / len(x))
        net.finish_update(optimizer)
        losses.append(float(-(y * np.log(guess + 1e-9)).sum(1).mean()))
    return net, losses


def test_trains_a_model_as_thinc_does():
    """thinc's Adam has epsilon-hat, too."""
    ours, losses = train(ThincOptimizer(fastlr.Adam, lr=0.02, eps_mode="keras"))
    theirs, others = train(thinc.Adam(0.02, L2=0.0, grad_clip=0.0, use_averages=False))
    assert losses[-1] < losses[0] / 2
    np.testing.assert_allclose(losses, others, rtol=1e-3)
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        np.testing.assert_allclose(a.get_param("W"), b.get_param("W"), rtol=1e-3, atol=1e-4)


def test_from_a_config():
    config = thinc.Config().from_str('[optimizer]\n@optimizers = "fastlr.Lion.v1"\nlr = 0.01\n')
    optimizer = thinc.registry.resolve(config)["optimizer"]
    assert optimizer.rule is fastlr.Lion
    _, losses = train(optimizer)
    assert losses[-1] < losses[0] / 1.5


@pytest.mark.parametrize("rule", [fastlr.AdamW, fastlr.SGD, fastlr.Adagrad])
def test_same_bits_as_the_class(rule):
    p = np.linspace(-1, 1, 50, dtype=np.float32)
    q = p.copy()
    optimizer, plain = ThincOptimizer(rule, lr=0.1), rule(q, lr=0.1)
    for t in range(5):
        g = np.random.default_rng(t).standard_normal(50).astype(np.float32)
        plain.step(g)
        weights, gradient = optimizer(0, p, g)
        assert weights is p
        assert not gradient.any()
    assert np.array_equal(p, q)


@pytest.mark.parametrize(
    "lr", [fastlr.schedules.linear(0.1, 0.0, 5), lambda t: 0.1 / (t + 1)], ids=["schedule", "function"]
)
def test_rates_by_the_step(lr):
    p, q = np.ones(3, np.float32), np.ones(3, np.float32)
    optimizer, plain = ThincOptimizer(fastlr.Adam, lr=lr), fastlr.Adam(q, lr=lr)
    for _ in range(3):
        plain.step(np.ones(3, np.float32))
        optimizer("W", p, np.ones(3, np.float32))
    assert np.array_equal(p, q)


def test_scaled_rates():
    p, q = np.ones(3, np.float32), np.ones(3, np.float32)
    ThincOptimizer(fastlr.SGD, lr=0.1)(0, p, np.ones(3, np.float32), lr_scale=0.5)
    fastlr.SGD(q, lr=0.05).step(np.ones(3, np.float32))
    assert np.array_equal(p, q)


def test_refusals():
    with pytest.raises(TypeError, match="unlike Prodigy"):
        ThincOptimizer(fastlr.Prodigy)
    with pytest.raises(TypeError, match="must be a numpy array"):
        ThincOptimizer(fastlr.Adam)(0, [1.0], [1.0])
