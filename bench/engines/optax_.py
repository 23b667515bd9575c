"""optax under jax.jit: parameters and state donated, so that XLA may work in place; one call, then wait for its end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from bench.cases import Array, Case
from bench.engines.base import Engine, Step


def transformation(case: Case) -> Any:
    h = dict(case.hyper)
    lr = h.pop("lr")
    match case.spec.function:
        case "sgd":
            return optax.sgd(lr, h.get("momentum"), h.get("nesterov", False))
        case "adagrad":
            return optax.adagrad(lr, initial_accumulator_value=0.0, eps=h["eps"])
        case "rmsprop":
            more = {"centered": h.get("centered", False), "momentum": h.get("momentum")}
            return optax.rmsprop(lr, h["alpha"], h["eps"], eps_in_sqrt=False, **more)
        case "adam":
            return optax.adam(lr, *h["betas"], h["eps"])
        case "adamw":
            return optax.adamw(lr, *h["betas"], h["eps"], weight_decay=h["weight_decay"])
        case "schedule_free_sgd":
            return optax.contrib.schedule_free_sgd(lr, b1=h["momentum"])
        case "schedule_free_adamw":
            b1, b2 = h["betas"]
            return optax.contrib.schedule_free_adamw(lr, b1=b1, b2=b2, eps=h["eps"], weight_decay=h["weight_decay"])
        case "ademamix":
            b1, b2, b3 = h["betas"]
            decay = {"weight_decay": h["weight_decay"]}
            return optax.contrib.ademamix(lr, b1, b2, b3, h["alpha"], h["eps"], **decay)
        case "adopt":
            return optax.contrib.adopt(lr, *h["betas"], h["eps"])
        case "dog":
            return optax.contrib.dog(lr, ("heuristic", h["reps_rel"]))
        case "dowg":
            return optax.contrib.dowg(lr, eps=h["eps"])
        case "lars":
            return optax.lars(lr, trust_coefficient=h["trust_coeff"], momentum=h["momentum"])
        case "lamb":
            return optax.lamb(lr, *h["betas"], h["eps"], weight_decay=h["weight_decay"])
        case "novograd":
            return optax.novograd(lr, *h["betas"], h["eps"], weight_decay=h["weight_decay"])
        case "adabelief":
            return optax.adabelief(lr, *h["betas"], eps=h["eps"], eps_root=h["eps"])
        case "yogi":
            start = {"initial_accumulator_value": h["initial_accumulator_value"]}
            return optax.chain(optax.scale_by_yogi(*h["betas"], h["eps"], **start), optax.scale_by_learning_rate(lr))
    return None


class Optax(Engine):
    name = "optax jit"

    @staticmethod
    def supports(case: Case) -> bool:
        # Its AMSGrad takes the maximum of the bias-corrected v: another rule than torch's.
        return transformation(case) is not None

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        rule = transformation(case)

        def update(params: Any, state: Any, grads: Any) -> Any:
            updates, state = rule.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        jitted = jax.jit(update, donate_argnums=(0, 1))
        self.values = jnp.array(p), rule.init(jnp.array(p))
        self.gradient(g)

        def step() -> None:
            self.values = jax.block_until_ready(jitted(*self.values, self.grads))

        return step

    def gradient(self, g: Array) -> None:
        self.grads = jnp.array(g)  # arrays are immutable: a new one

    def params(self) -> Array:
        return np.asarray(self.values[0])
