"""fastlr.torch.X in the place of torch.optim.X: 200 steps of two models, with checkpoints changing hands midway.

The bounds are those that users are promised: 1e-5 in float32, 1e-10 in float64. Rates are such that the models train;
where a rule divides by a gradient that is next to nothing, rounding is magnified in any implementation.
"""

import io

import pytest

torch = pytest.importorskip("torch")

import fastlr.torch  # noqa: E402
from tests.torch_models import MODELS, backward, batches, build  # noqa: E402

STEPS, HALF, DIFFERENT = 200, 100, 20
BOUND = {torch.float32: 1e-5, torch.float64: 1e-10}
CASES = {
    "ASGD": {"lr": 0.01},
    "ASGD averaging": {"lr": 0.01, "t0": 20, "weight_decay": 0.01},
    "SGD": {"lr": 0.01},
    "SGD momentum": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3},
    "SGD nesterov": {"lr": 1e-3, "momentum": 0.9, "nesterov": True},
    "SGD dampening": {"lr": 0.01, "momentum": 0.9, "dampening": 0.5},
    "Adadelta": {"lr": 0.1},
    "Adafactor": {"lr": 1e-3, "weight_decay": 0.01},
    "Adagrad": {"lr": 1e-3, "lr_decay": 0.01, "initial_accumulator_value": 0.1},
    "Adam": {"lr": 1e-3},
    "Adam amsgrad": {"lr": 1e-3, "amsgrad": True, "weight_decay": 1e-3},
    "AdamW": {"lr": 1e-3, "weight_decay": 0.01},
    "AdamW amsgrad": {"lr": 3e-4, "amsgrad": True},
    "Adamax": {"lr": 1e-3},
    "NAdam": {"lr": 1e-3},
    "NAdam decoupled": {"lr": 1e-3, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "RAdam": {"lr": 1e-3},
    "RAdam decoupled": {"lr": 1e-3, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "RMSprop": {"lr": 1e-4, "eps": 1e-4},
    "RMSprop centered": {"lr": 1e-4, "eps": 1e-2, "centered": True, "momentum": 0.5},
    "Rprop": {"lr": 1e-4},
}


def optimizers(case, ours, theirs):
    """torch's optimizer and ours, with two groups where the rule has a decay to tell them apart."""
    name = case.split()[0]

    def make(cls, params):
        params = list(params)
        if name == "Rprop":
            return cls(params, **CASES[case])
        return cls([{"params": params[::2]}, {"params": params[1::2], "weight_decay": 0.0}], **CASES[case])

    return make(getattr(torch.optim, name), theirs), make(getattr(fastlr.torch, name), ours)


@pytest.fixture(autouse=True)
def default_dtype(dtype):
    """Of what torch keeps beside its tensors: it would cast the numbers of ASGD and NAdam when it loads them."""
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)  # for models as small as these more cost much
    yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)


def through_file(saved):
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def difference(a, b):
    return max((p - q).detach().abs().max().item() for p, q in zip(a.parameters(), b.parameters(), strict=True))


PLAIN = [(case, kind) for case in CASES for kind in MODELS if " " not in case or kind == "transformer"]


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(("case", "kind"), PLAIN)
def test_agrees_with_torch(case, kind, dtype):
    """Each goes on with the other's checkpoint from the middle.

    In float32 torch's rounding of p (1 - lr decay) is off by more than the bound where p is large and the decay small:
    there fastlr must be within the bound of what float64 gives.
    """
    theirs, ours = build(kind, dtype), build(kind, dtype)
    a, b = optimizers(case, ours.parameters(), theirs.parameters())
    data = batches(kind, DIFFERENT, dtype)
    for t in range(STEPS):
        if t == HALF:
            saved = through_file(a.state_dict()), through_file(b.state_dict())
            a, b = optimizers(case, ours.parameters(), theirs.parameters())
            b.load_state_dict(saved[0])
            a.load_state_dict(saved[1])
        for model, opt in ((theirs, a), (ours, b)):
            opt.zero_grad()
            backward(model, data[t % DIFFERENT])
            opt.step()
    assert difference(ours, build(kind, dtype)) > 100 * BOUND[torch.float32]
    if difference(ours, theirs) > BOUND[dtype]:
        exact = exactly(case, kind)
        assert dtype == torch.float32
        assert difference(theirs, exact) > BOUND[dtype] >= difference(ours, exact)
    for slot, its in zip(b.state_dict()["state"].values(), a.state_dict()["state"].values(), strict=True):
        assert slot.keys() == its.keys()
        for key, x in its.items():
            assert (slot[key].shape, slot[key].dtype) == (x.shape, x.dtype), key


def exactly(case, kind):
    """The model that torch makes in float64 of the same parameters and batches."""
    model = build(kind).to(torch.float64)
    data = [tuple(x.double() if x.is_floating_point() else x for x in batch) for batch in batches(kind, DIFFERENT)]
    opt, _ = optimizers(case, model.parameters(), model.parameters())
    for t in range(STEPS):
        opt.zero_grad()
        backward(model, data[t % DIFFERENT])
        opt.step()
    return model
