"""Checkpoints: strict, transactional, exact."""

import copy
import json

import numpy as np
import pytest

import fastlr


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


MODELS = {
    "array": (lambda: data(40), lambda k: data(40, seed=k)),
    "list": (lambda: [data(3), data(2, 2)], lambda k: [data(3, seed=k), data(2, 2, seed=k)]),
    "dict": (lambda: {"w": data(3), "b": data(2)}, lambda k: {"w": data(3, seed=k), "b": data(2, seed=k)}),
    "groups": (
        lambda: [{"params": {"w": data(3)}, "lr": 0.1}, {"params": data(2)}],
        lambda k: [{"w": data(3, seed=k)}, data(2, seed=k)],
    ),
    "flat": (
        lambda: fastlr.FlatBuffer.pack({"w": data(3, 2), "b": data(2)}),
        lambda k: fastlr.FlatBuffer.pack({"w": data(3, 2, seed=k), "b": data(2, seed=k)}),
    ),
}
OPTIMIZERS = {
    "SGD": fastlr.SGD,
    "momentum": lambda p: fastlr.SGD(p, momentum=0.9, nesterov=True),
    "Adagrad": lambda p: fastlr.Adagrad(p, lr_decay=0.1, initial_accumulator_value=1),
    "RMSprop": lambda p: fastlr.RMSprop(p, centered=True, momentum=0.5),
    "Adam": lambda p: fastlr.Adam(p, betas=(0.8, 0.95)),
    "AdamW": fastlr.AdamW,
    "AMSGrad": fastlr.AMSGrad,
    "DAdaptSGD": fastlr.DAdaptSGD,
    "Prodigy": fastlr.Prodigy,
    "DoG": lambda p: fastlr.DoG(p, averaging=8),
    "LAMB": fastlr.LAMB,
    "NovoGrad": fastlr.NovoGrad,
    "SGDHD": lambda p: fastlr.SGDHD(p, hypergrad_lr=0.5),
    "cautious": lambda p: fastlr.Lion(p, cautious=True),
}


def arrays(opt):
    return [*opt._structure.arrays, *(a for entries in opt._entries.values() for a in entries)]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("params", "grads"), MODELS.values(), ids=MODELS)
def test_resumed_training_is_the_same_bit_for_bit(make, params, grads):
    straight = make(params())
    for k in range(10):
        straight.step(grads(k))
    first = make(params())
    for k in range(5):
        first.step(grads(k))
    saved = first.state_dict()
    second = make(params())
    for p, q in zip(second._structure.arrays, first._structure.arrays, strict=True):
        p[...] = q
    second.load_state_dict(saved)
    for k in range(5, 10):
        second.step(grads(k))
    for a, b in zip(arrays(straight), arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert second.step_count == 10


def test_state_dict_is_plain_and_a_copy():
    opt = fastlr.AdamW({"w": data(3)})
    opt.step({"w": data(3)})
    saved = opt.state_dict()
    state = saved.pop("state")
    assert json.loads(json.dumps(saved)) == json.loads(json.dumps(saved))
    assert saved["step"] == 1
    assert saved["steps"] == [1]
    kept = state["m"]["w"].copy()
    opt.step({"w": data(3)})
    np.testing.assert_array_equal(state["m"]["w"], kept)


def test_hyper_parameters_and_skipped_entries_are_restored():
    ps = [data(2), data(2)]
    opt = fastlr.Adam(ps, lr=0.1)
    opt.step([None, data(2)])
    opt.groups[0].lr = 0.25
    saved = opt.state_dict()
    assert saved["steps"] == [0, 1]
    other = fastlr.Adam([data(2), data(2)])
    other.load_state_dict(saved)
    assert other.groups[0].lr == 0.25
    assert other.state_dict()["steps"] == [0, 1]
    assert other.step([data(2), data(2)]).lr == 0.25


def test_a_function_stays_a_function():
    opt = fastlr.SGD(data(2), lr=lambda n: 0.5)
    saved = opt.state_dict()
    assert saved["groups"][0]["lr"] is None
    other = fastlr.SGD(data(2), lr=lambda n: 0.25)
    other.load_state_dict(saved)
    assert other.step(data(2)).lr == 0.25
    with pytest.raises(ValueError, match="a function when it was saved"):
        fastlr.SGD(data(2)).load_state_dict(saved)
    with pytest.raises(ValueError, match="same kind"):
        other.load_state_dict(fastlr.SGD(data(2)).state_dict())


def test_steps_do_not_saturate():
    opt = fastlr.Adam(np.zeros(1, np.float32))
    saved = opt.state_dict()
    saved["step"], saved["steps"] = 2**53, [2**53]
    opt.load_state_dict(saved)
    assert opt.step(np.ones(1, np.float32)).step == 2**53 + 1
    assert opt.state_dict()["steps"] == [2**53 + 1]


def broken(change):
    saved = copy.deepcopy(fastlr.Adam({"w": data(3), "b": data(2)}, lr=0.5).state_dict())
    change(saved)
    return saved


BREAKS = {
    "missing key": lambda s: s.pop("step"),
    "unknown key": lambda s: s.update(extra=1),
    "format": lambda s: s.update(format=2),
    "rule": lambda s: s.update(rule="sgd"),
    "step negative": lambda s: s.update(step=-1),
    "step float": lambda s: s.update(step=1.0),
    "steps short": lambda s: s.update(steps=[1]),
    "steps bool": lambda s: s.update(steps=[True, 1]),
    "groups": lambda s: s["groups"].append(s["groups"][0]),
    "group key": lambda s: s["groups"][0].pop("eps"),
    "group unknown": lambda s: s["groups"][0].update(gamma=1),
    "group value": lambda s: s["groups"][0].update(eps=0),
    "group betas": lambda s: s["groups"][0].update(betas=(0.9, 2)),
    "state missing": lambda s: s["state"].pop("v"),
    "state unknown": lambda s: s["state"].update(x={}),
    "name missing": lambda s: s["state"]["v"].pop("b"),
    "name unknown": lambda s: s["state"]["v"].update(c=data(1)),
    "shape": lambda s: s["state"]["v"].update(b=data(3)),
    "shape of the same size": lambda s: s["state"]["v"].update(b=data(2, 1)),
    "dtype": lambda s: s["state"]["v"].update(b=np.zeros(2)),
    "not an array": lambda s: s["state"]["v"].update(b="ab"),
}


@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_loading_is_strict_and_transactional(change):
    opt = fastlr.Adam({"w": data(3), "b": data(2)}, lr=0.1)
    opt.step({"w": data(3), "b": data(2)})
    before = opt.state_dict()
    with pytest.raises(ValueError, match=r"state_dict|must"):
        opt.load_state_dict(broken(change))
    after = opt.state_dict()
    assert {k: v for k, v in after.items() if k != "state"} == {k: v for k, v in before.items() if k != "state"}
    for key, named in before["state"].items():
        for name, array in named.items():
            np.testing.assert_array_equal(after["state"][key][name], array)


def test_a_state_of_other_optimizers_is_refused():
    saved = fastlr.Adam(data(3)).state_dict()
    with pytest.raises(ValueError, match=r"\['rule'\] must be 'amsgrad', got 'adam'"):
        fastlr.AMSGrad(data(3)).load_state_dict(saved)
    with pytest.raises(ValueError, match="shape"):
        fastlr.Adam(data(4)).load_state_dict(saved)
    with pytest.raises(ValueError, match="dtype"):
        fastlr.Adam(np.zeros(3)).load_state_dict(saved)
