"""Deep reinforcement learning: policy gradient on CartPole, the rate adapted to how well the agent does.

REINFORCE with a baseline: sixteen poles are balanced side by side, and the logarithm of each action's probability is
raised by how much better than the average the rest of its episode was. The rate follows the agent: it is lowered as the
mean return approaches the goal, and halved whenever the policy collapses, so that what has been learnt stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastlr
from examples import main
from fastlr import plots
from fastlr.extras import need

GOAL = 195.0  # mean return over 100 episodes in a row
POLES = 16
HIDDEN = 32
DISCOUNT = 0.99
LR = 2e-2
MOST = 150  # batches of episodes
LIMIT = 500  # steps after which CartPole-v1 ends an episode


def forward(params: fastlr.FlatBuffer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden layer, and the probability of pushing to the right."""
    h = np.tanh(x @ params["w1"] + params["b1"])
    return h, 1 / (1 + np.exp(-(h @ params["w2"] + params["b2"])[..., 0]))


def episodes(env: Any, params: fastlr.FlatBuffer, random: np.random.Generator, seed: int) -> tuple[np.ndarray, ...]:
    """Observations, actions and whether each pole still stood: (steps, poles, ...)."""
    x, _ = env.reset(seed=seed)
    alive = np.ones(POLES, bool)
    seen, acted, stood = [], [], []
    while alive.any():
        action = (random.random(POLES) < forward(params, x)[1]).astype(np.int64)
        seen.append(x.copy())
        acted.append(action)
        stood.append(alive.copy())
        x, _, fallen, cut, _ = env.step(action)
        alive &= ~(fallen | cut)
    return np.array(seen), np.array(acted), np.array(stood)


def gradients(params: fastlr.FlatBuffer, grads: fastlr.FlatBuffer, seen, acted, stood) -> float:
    """Writes the policy gradient's negative to `grads`; returns the loss."""
    returns = np.zeros(stood.shape)
    after = np.zeros(POLES)
    for t in reversed(range(len(stood))):
        after = stood[t] * (1 + DISCOUNT * after)
        returns[t] = after
    x, a, r = seen[stood], acted[stood], returns[stood]
    advantage = (r - r.mean()) / (r.std() + 1e-8)
    h, p = forward(params, x)
    loss = -float(np.mean(advantage * np.log(np.where(a == 1, p, 1 - p) + 1e-12)))
    delta = ((p - a) * advantage / len(a))[:, None]
    grads["w2"][:] = h.T @ delta
    grads["b2"][:] = delta.sum(0)
    delta = delta @ params["w2"].T * (1 - h * h)
    grads["w1"][:] = x.T @ delta
    grads["b1"][:] = delta.sum(0)
    return loss


class FollowReturn:
    """The rate: lower the nearer the mean return is to the limit, and half as high after each collapse."""

    def __init__(self, lr: float) -> None:
        self.lr, self.best, self.mean, self.scale = lr, 0.0, 0.0, 1.0

    def see(self, mean: float) -> None:
        self.mean = mean
        if mean < 0.5 * self.best:
            self.scale, self.best = self.scale / 2, mean
        self.best = max(self.best, mean)

    def __call__(self, step: int) -> float:
        return self.lr * self.scale * max(0.05, 1 - self.mean / LIMIT)


def train(seed: int = 0) -> dict[str, list[float]]:
    gymnasium = need("gymnasium", "examples", "the CartPole example")
    env = gymnasium.make_vec("CartPole-v1", num_envs=POLES, vectorization_mode="vector_entry_point")
    random = np.random.default_rng(seed)
    params = fastlr.FlatBuffer({"w1": (4, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, 1), "b2": (1,)}, np.float64)
    params["w1"][:] = random.normal(0, 0.5, (4, HIDDEN))
    grads, rate = params.like(), FollowReturn(LR)
    opt = fastlr.Adam(params, lr=rate, betas=(0.9, 0.99))
    log: dict[str, list[float]] = {"return": [], "lr": []}
    for k in range(MOST):
        seen, acted, stood = episodes(env, params, random, seed * 10_000 + k)
        log["return"] += stood.sum(0).astype(float).tolist()
        rate.see(float(np.mean(log["return"][-2 * POLES :])))
        if len(log["return"]) >= 100 and np.mean(log["return"][-100:]) >= GOAL:
            break
        gradients(params, grads, seen, acted, stood)
        log["lr"].append(opt.step(grads, clip_norm=1.0).lr)
    env.close()
    return log


def run(png: str) -> dict[str, Any]:
    log = train()
    returns = np.array(log["return"])
    means = np.convolve(returns, np.ones(100) / 100, "valid")

    figure, (curve, rate) = plots.panels(2, "Policy gradient on CartPole")
    curve.plot(returns, ".", color=plots.SKY, markersize=2, label="episode")
    curve.plot(np.arange(99, len(returns)), means, color=plots.BLUE, label="mean of 100")
    curve.axhline(GOAL, color=plots.RED, linestyle="--", label=f"goal {GOAL:.0f}")
    curve.legend(frameon=False)
    rate.plot(log["lr"], color=plots.GREEN)
    plots.label(curve, "return", "episode")
    plots.label(rate, "learning rate, following the return", "update")
    plots.finish(figure, png)
    return {"mean return of the last 100": float(means[-1]), "episodes": len(returns)}


if __name__ == "__main__":
    main(run, "cartpole")
