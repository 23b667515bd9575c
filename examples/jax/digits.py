"""`python examples/jax/digits.py`: softmax regression on scikit-learn's digits in JAX, with a fastlr rule under jit."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import fastlr.jax


def run(steps=300):
    """The accuracy on the last 300 digits, which others wrote than those before."""
    digits = load_digits()
    x, y = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target)
    opt = fastlr.jax.transform(fastlr.AdamW, lr=fastlr.schedules.cosine(0.1, 0.0, steps))
    params = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
    state = opt.init(params)

    def loss(params):
        logits = x[:-300] @ params["w"] + params["b"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[:-300]).mean()

    @jax.jit
    def step(params, state):
        updates, state = opt.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return float((jnp.argmax(x[-300:] @ params["w"] + params["b"], 1) == y[-300:]).mean())


if __name__ == "__main__":
    print(f"accuracy {run():.3f}")
