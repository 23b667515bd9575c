"""The tests of fastlr.keras on the backend that KERAS_BACKEND names: see test_keras.py."""

import keras
import numpy as np
import pytest

import fastlr
import fastlr.keras as ours
from fastlr import schedules

BACKEND = keras.backend.backend()
NUMPY = BACKEND == "numpy"
theirs = keras.optimizers
SHAPES = ((5, 7), (7,), (3, 2, 4), ())
# Of numbers near 1, after 30 steps of about lr each. Keras's numpy backend computes in float32 here and there.
BOUND = {"float32": 5e-6, "float64": 5e-6 if NUMPY else 1e-13}

PAIRS = {  # Keras's optimizer, its arguments; ours, with the same meaning
    "Adam": (theirs.Adam, {}, ours.Adam, {"eps": 1e-7}),
    "Adam-amsgrad": (theirs.Adam, {"amsgrad": True}, ours.AMSGrad, {"eps": 1e-7}),
    "Adam-decay": (theirs.Adam, {"weight_decay": 0.1}, ours.Adam, {"eps": 1e-7, "weight_decay": 0.1}),
    "Adam-eps": (theirs.Adam, {"epsilon": 0.1, "beta_2": 0.9}, ours.Adam, {"eps": 0.1, "betas": (0.9, 0.9)}),
    "AdamW": (theirs.AdamW, {"weight_decay": 0.1}, ours.AdamW, {"eps": 1e-7, "weight_decay": 0.1}),
    "Adamax": (theirs.Adamax, {"epsilon": 0.1}, ours.Adamax, {"eps": 0.1}),
    "Adadelta": (theirs.Adadelta, {"rho": 0.9, "epsilon": 1e-3}, ours.Adadelta, {"rho": 0.9, "eps": 1e-3}),
    "Adagrad": (
        theirs.Adagrad,
        {"initial_accumulator_value": 0.1, "epsilon": 0.1},
        ours.Adagrad,
        {"initial_accumulator_value": 0.1, "eps": 0.1},
    ),
    "RMSprop": (theirs.RMSprop, {"rho": 0.9, "epsilon": 0.1}, ours.RMSprop, {"alpha": 0.9, "eps": 0.1}),
    "RMSprop-all": (
        theirs.RMSprop,
        {"rho": 0.9, "momentum": 0.5, "centered": True},
        ours.RMSprop,
        {"alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-7},
    ),
    "SGD": (theirs.SGD, {}, ours.SGD, {}),
    "SGD-decay": (
        theirs.SGD,
        {"momentum": 0.9, "weight_decay": 0.1},
        ours.SGD,
        {"momentum": 0.9, "weight_decay": 0.1},
    ),
    "SGD-nesterov": (
        theirs.SGD,
        {"momentum": 0.9, "nesterov": True},
        ours.SGD,
        {"momentum": 0.9, "nesterov": True},
    ),
    "Nadam": (theirs.Nadam, {}, ours.NAdam, {"eps": 1e-7, "momentum_decay": 1.0}),
    "Lion": (theirs.Lion, {}, ours.Lion, {}),
    "Ftrl": (
        theirs.Ftrl,
        {"l1_regularization_strength": 0.1},
        ours.FTRL,
        {"l1": 0.1, "beta": 0.0, "initial_accumulator_value": 0.1},
    ),
    "Lamb": (theirs.Lamb, {"epsilon": 1e-3}, ours.LAMB, {"eps": 1e-3, "weight_decay": None, "always_adapt": True}),
}
if NUMPY:  # on torch Keras's reads a momentum that it has changed already: momentum_old is no copy
    PAIRS["ScheduleFreeAdamW"] = (theirs.ScheduleFreeAdamW, {"epsilon": 1e-3}, ours.ScheduleFreeAdamW, {"eps": 1e-3})


def arrays(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    return [np.asarray(random.standard_normal(shape), dtype) for shape in SHAPES]


def variables(dtype="float32"):
    return [keras.Variable(x, dtype=dtype) for x in arrays(0, dtype)]


def tensors(xs):
    return [keras.ops.convert_to_tensor(x) for x in xs]


@pytest.fixture
def floatx(dtype):
    """Of Keras's own variables, the learning rate among them."""
    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    yield
    keras.config.set_floatx(before)


def trained(optimizer, dtype="float32", steps=30):
    found = variables(dtype)
    for t in range(1, steps + 1):
        optimizer.apply(tensors(arrays(t, dtype)), found)
    return [v.numpy() for v in found]


def farthest(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


# ---- the same steps as Keras's --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("floatx")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_steps_of_keras(name, dtype):
    base, given, own, same = PAIRS[name]
    expected = trained(base(learning_rate=0.01, **given), dtype)
    found = trained(own(learning_rate=0.01, **same), dtype)
    assert farthest(found, expected) < BOUND[dtype]
    assert farthest(found, arrays(0, dtype)) > 1e-3
    assert {x.dtype for x in found} == {np.dtype(dtype)}


COMMON = {
    "clipnorm": {"clipnorm": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.3},
    "accumulation": {"gradient_accumulation_steps": 3},
    "accumulation-clipped": {"gradient_accumulation_steps": 3, "global_clipnorm": 0.5, "weight_decay": 0.1},
    "mean": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 4},
    "loss-scale": {"loss_scale_factor": 8.0, "clipvalue": 0.05},
}


@pytest.mark.usefixtures("floatx")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", COMMON)
def test_what_all_optimizers_of_keras_have(name, dtype):
    """Norms are compared with 1e-6 added, which is a share of 2e-6 of these."""
    given = {"learning_rate": 0.01, **COMMON[name]}
    expected = trained(theirs.SGD(momentum=0.9, **given), dtype)
    found = trained(ours.SGD(momentum=0.9, **given), dtype)
    assert farthest(found, expected) < (1e-5 if "clipnorm" in str(given) else BOUND[dtype])
    assert farthest(found, trained(ours.SGD(learning_rate=0.01, momentum=0.9), dtype)) > 1e-3


@pytest.mark.parametrize("given", [{"clipnorm": 0.5}, {"clipvalue": 0.3}])
def test_rules_that_cannot_clip_so_in_the_step_leave_it_to_keras(given):
    """Adafactor is no sweep; DoWG's group is the model."""
    for own in (ours.Adafactor, ours.DoWG):
        optimizer, plain = own(**given), own()
        clipped = [keras.ops.convert_to_numpy(g) for g in theirs.SGD(**given)._clip_gradients(tensors(arrays(1)))]
        a, b = variables(), variables()
        optimizer.apply(tensors(arrays(1)), a)
        plain.apply(tensors(clipped), b)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.numpy(), y.numpy())


def test_some_variables_without_weight_decay():
    found = []
    for base, eps in ((theirs.AdamW, {"epsilon": 1e-7}), (ours.AdamW, {"eps": 1e-7})):
        ws = [keras.Variable(np.full(3, 4.0, "float32"), name=name) for name in ("kernel", "bias")]
        optimizer = base(learning_rate=0.1, weight_decay=0.5, **eps)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.apply(tensors([np.ones(3, "float32")] * 2), ws)
        found.append([w.numpy() for w in ws])
    assert farthest(*found) < 1e-6
    assert found[1][1][0] - found[1][0][0] == pytest.approx(0.2)
    optimizer = ours.DoWG(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match=r"must leave all variables to DoWG, .* got 'bias' excluded"):
        optimizer.apply(tensors([np.ones(3, "float32")] * 2), ws)


def test_schedules():
    curve = schedules.cosine(0.1, 0.0, 20)
    expected = trained(theirs.SGD(learning_rate=theirs.schedules.CosineDecay(0.1, 20)), steps=15)
    assert farthest(trained(ours.SGD(learning_rate=theirs.schedules.CosineDecay(0.1, 20)), steps=15), expected) < 1e-6
    assert farthest(trained(ours.SGD(learning_rate=curve), steps=15), expected) < 1e-6
    found = trained(ours.AdamW(learning_rate=curve, betas=(schedules.linear(0.8, 0.9, 10), 0.99)), steps=15)
    params = arrays(0)
    opt = fastlr.AdamW(params, lr=curve, betas=(schedules.linear(0.8, 0.9, 10), 0.99), eps_mode="keras")
    for t in range(1, 16):
        opt.step(arrays(t))
    for x, p in zip(found, params, strict=True):
        np.testing.assert_array_equal(x, p)
    optimizer = ours.SGD(learning_rate=0.1)
    optimizer.learning_rate = 0.5
    (w,) = [keras.Variable(np.ones(2, "float32"))]
    optimizer.apply(tensors([np.ones(2, "float32")]), [w])
    np.testing.assert_array_equal(w.numpy(), 0.5)


# ---- in place, for every rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ours.__all__ if name not in ("KerasOptimizer", "optimizer_of")])
def test_every_rule_has_the_bits_of_its_class_where_the_variables_lie(name):
    own = getattr(ours, name)
    shapes = ((6, 4),) if name == "Muon" else SHAPES
    random = np.random.default_rng(0)
    params = [np.asarray(random.standard_normal(shape), np.float32) for shape in shapes]
    held = [keras.Variable(p) for p in params]
    memory = [v.value if NUMPY else v.value.data_ptr() for v in held]
    optimizer = own(weight_decay=0.0)
    chosen = {key: x for key, x in optimizer.hyper if key in ("eps_mode", "decoupled_weight_decay", "decouple")}
    plain = own.rule(params, lr=float(optimizer.learning_rate), weight_decay=0.0, **chosen)  # Keras has it as float32
    for t in range(4):
        grads = [np.asarray(random.standard_normal(shape), np.float32) for shape in shapes]
        if t == 1 and len(shapes) > 1:  # no gradient: no step of that variable
            plain.step([None, *grads[1:]])
            optimizer.apply(tensors(grads[1:]), held[1:])
        else:
            plain.step(grads)
            optimizer.apply(tensors(grads), held)
    for v, p, at in zip(held, params, memory, strict=True):
        np.testing.assert_array_equal(v.numpy(), p)
        assert (v.value is at) if NUMPY else (v.value.data_ptr() == at)
    for key in plain.states:
        for v, x in zip(optimizer._bound.state[key], plain.state[key], strict=True):
            np.testing.assert_array_equal(v.numpy(), x)


def test_memory_that_is_another():
    held, optimizer = variables(), ours.Adam(learning_rate=0.1)
    expected = trained(ours.Adam(learning_rate=0.1), steps=2)
    optimizer.apply(tensors(arrays(1)), held)
    for v in held:
        if NUMPY:
            v.assign(v.value)  # which puts a copy in its place
        else:
            v.value.data = v.value.data.clone()
    optimizer.apply(tensors(arrays(2)), held)
    assert farthest([v.numpy() for v in held], expected) == 0


def test_matrices_in_another_order():
    x = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    if NUMPY:
        w = keras.Variable(x)
        w._value = x
    else:
        import torch

        w = keras.Variable(torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(x.T)).T))
        assert not w.value.is_contiguous()
    optimizer = ours.SGD(learning_rate=1.0)
    optimizer.apply([keras.ops.transpose(keras.ops.convert_to_tensor(np.ascontiguousarray(x.T)))], [w])
    np.testing.assert_array_equal(w.numpy(), np.zeros((3, 4)))


# ---- configuration and files ----------------------------------------------------------------------------------------


def test_a_config_makes_the_same_optimizer():
    curve = schedules.cosine(0.1, 0.0, 20)
    optimizer = ours.AdamW(learning_rate=curve, betas=(schedules.linear(0.8, 0.9, 10), 0.99), clipnorm=1.0, eps=1e-5)
    config = theirs.serialize(optimizer)
    assert config["registered_name"] == "fastlr>AdamW"
    import json

    other = theirs.deserialize(json.loads(json.dumps(config)))
    assert type(other) is ours.AdamW
    assert other.get_config() == optimizer.get_config()
    assert dict(other.hyper) == dict(optimizer.hyper)
    assert farthest(trained(other, steps=5), trained(optimizer, steps=5)) == 0
    assert ours.Adam().get_config()["eps_mode"] == "keras"
    assert ours.SGD.from_config(ours.SGD(learning_rate=0.25, momentum=0.5).get_config()).hyper.momentum == 0.5


@pytest.mark.parametrize("name", ["AdamW", "NAdam", "Adafactor", "Prodigy", "ScheduleFreeAdamW"])
def test_saved_optimizers_continue_with_the_same_bits(name, tmp_path):
    """Also with numbers that a rule carries, and states of other shapes. On torch, which trains, in a model's file."""
    own = getattr(ours, name)
    if NUMPY:
        first, held = own(), variables()
        first.apply(tensors(arrays(1)), held)
        store = {}
        first.save_own_variables(store)
        second, others = own(), [keras.Variable(v.numpy()) for v in held]
        second.build(others)
        second.load_own_variables(store)
        for t in (2, 3):
            first.apply(tensors(arrays(t)), held)
            second.apply(tensors(arrays(t)), others)
        assert farthest([v.numpy() for v in held], [v.numpy() for v in others]) == 0
        return
    x = np.random.default_rng(0).standard_normal((64, 6)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    model.compile(own(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, x[:, :3].argmax(1), verbose=0)
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert type(other.optimizer) is own
    for trained_on in (model, other):
        trained_on.fit(x, x[:, :3].argmax(1), epochs=2, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(other.optimizer.iterations) == 6


@pytest.mark.skipif(NUMPY, reason="Keras does not train on numpy")
def test_training_with_the_scale_of_a_loss_found():
    x = np.random.default_rng(0).standard_normal((256, 6)).astype("float32")
    found = []
    for inner in (theirs.Adam(learning_rate=0.01), ours.Adam(learning_rate=0.01, eps=1e-7)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        model.compile(theirs.LossScaleOptimizer(inner), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, x[:, :3].argmax(1), epochs=3, verbose=0, shuffle=False)
        found.append(model.get_weights())
    assert farthest(*found) < 1e-5


def test_rules_of_users():
    pytest.importorskip("numba")
    from tests.test_custom import Mine, MyNAdam

    for rule, built_in in ((Mine, ours.AdamW), (MyNAdam, ours.NAdam)):
        own = ours.optimizer_of(rule)
        same = {"eps_mode": "torch"} if built_in is ours.AdamW else {}
        found, expected = trained(own(learning_rate=0.01), steps=4), trained(built_in(0.01, **same), steps=4)
        assert farthest(found, expected) <= (0 if rule is Mine else 1e-6)
        config = theirs.serialize(own(learning_rate=0.01, betas=(0.5, 0.9)))
        assert theirs.deserialize(config).hyper.betas == (0.5, 0.9)
    with pytest.raises(TypeError, match=r"must be a class that fastlr\.rule made"):
        ours.optimizer_of(fastlr.AdamW)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_refusals():
    with pytest.raises(ValueError, match=r"not recognized: \{'beta_1': 0.5\}"):
        ours.Adam(beta_1=0.5)
    with pytest.raises(ValueError, match=r"betas\[0\] must be in \[0, 1\), got 1.5"):
        ours.Adam(betas=(1.5, 0.9))
    with pytest.raises(TypeError, match=r"variables must be all float32 or all float64, got bfloat16; keras.mixed"):
        ours.Adam().build([keras.Variable(np.ones(3, "float32"), dtype="bfloat16")])
    with pytest.raises(TypeError, match="all float32 or all float64, got float32, float64"):
        ours.Adam().build([keras.Variable(np.ones(3), dtype=dtype) for dtype in ("float32", "float64")])
    optimizer, held = ours.SGD(), variables()
    optimizer.build(held)
    with pytest.raises(NotImplementedError, match="updates variables in place and has no stateless_apply"):
        optimizer.stateless_apply([v.value for v in optimizer.variables], tensors(arrays(1)), [v.value for v in held])
    assert farthest([v.numpy() for v in held], arrays(0)) == 0
    optimizer.hyper.momentum = 0.9
    with pytest.raises(ValueError, match="hyper must need the states that the optimizer was built with"):
        optimizer.apply(tensors(arrays(1)), held)
    optimizer.hyper.momentum = 0.0
    with pytest.raises(ValueError, match="shape"):
        optimizer.apply(tensors(arrays(1)[::-1]), held)
    assert farthest([v.numpy() for v in held], arrays(0)) == 0
    assert not hasattr(ours, "AdaHessian")
    assert not hasattr(ours, "LazyAdam")
