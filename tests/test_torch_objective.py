"""A torch module under `fastlr.train` and `fastlr.tune`."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastlr  # noqa: E402
import fastlr.torch  # noqa: E402
from tests.torch_models import MODELS, batches, build  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loss(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


class Noisy(torch.nn.Module):
    """With dropout, and averages beside the parameters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3))
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x))


def loader(shuffle=True, generator=False):
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(50, 4, generator=rng)
    data = torch.utils.data.TensorDataset(x, x[:, :3].argmax(1))
    own = torch.Generator() if generator else None
    return torch.utils.data.DataLoader(data, batch_size=8, shuffle=shuffle, generator=own)


@pytest.mark.parametrize("kind", MODELS)
def test_trains_as_torch_does(kind):
    ours, theirs, data = build(kind), build(kind), batches(kind, 5)
    f = fastlr.torch.objective(ours, loss, data)
    history = fastlr.train(f, f.params, fastlr.AdamW(f.params, lr=1e-2), steps=20, progress=False)
    opt = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    losses = []
    for t in range(20):
        opt.zero_grad()
        losses.append(loss(theirs, data[t % 5]))
        losses[-1].backward()
        opt.step()
    assert np.allclose(history.loss, [x.item() for x in losses], rtol=1e-4)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("generator", [False, True])
def test_batches_and_dropout_depend_on_the_step_alone(generator):
    f = fastlr.torch.objective(Noisy(), loss, loader(generator=generator), seed=5)
    in_order = [f(f.params, t)[0] for t in range(20)]
    torch.manual_seed(99)
    again = fastlr.torch.objective(Noisy(), loss, loader(generator=generator), seed=5)
    jumping = {t: again(again.params, t)[0] for t in (12, 12, 3, 4, 19, 0)}
    assert jumping == {t: in_order[t] for t in jumping}
    assert len(set(in_order)) == 20
    other = fastlr.torch.objective(Noisy(), loss, loader(generator=generator), seed=6)
    assert other(other.params, 0)[0] != in_order[0]


def test_random_numbers_of_others_are_left_alone():
    f = fastlr.torch.objective(Noisy(), loss, loader())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    f(f.params, 0)
    assert torch.equal(torch.rand(3), expected)


def test_range_test_restores_the_module():
    module = Noisy()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    f = fastlr.torch.objective(module, loss, loader())
    result = fastlr.tune.range_test(f, f.params, fastlr.AdamW, steps=40)
    assert 1e-7 < result.suggestion < 10
    for name, x in module.state_dict().items():
        assert torch.equal(x, before[name]), name


def test_resumes_bit_for_bit(tmp_path):
    def run(steps, path, resume=None):
        module = Noisy()
        f = fastlr.torch.objective(module, loss, loader())
        callbacks = [fastlr.callbacks.Checkpoint(path, every=10)]
        opt = fastlr.AdamW(f.params, lr=1e-2)
        fastlr.train(f, f.params, opt, steps=steps, callbacks=callbacks, resume=resume, progress=False)
        return module

    whole = run(20, tmp_path / "whole.safetensors")
    run(10, tmp_path / "half.safetensors")
    resumed = run(20, tmp_path / "half.safetensors", resume=tmp_path / "half.safetensors")
    for name, x in whole.state_dict().items():
        assert torch.equal(x, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fastlr.torch.objective(Noisy(), 3, []), "loss must be callable"),
        (lambda: fastlr.torch.objective(Noisy(), loss, 3), "loader must be a list of batches or a DataLoader"),
        (lambda: fastlr.torch.objective(Noisy().to("meta"), loss, []), "must be on the CPU"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(TypeError, match=message):
        make()
