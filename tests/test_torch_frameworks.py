"""fastlr.torch in libraries that wrap torch's optimizers, where they are installed."""

import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

import fastlr.torch  # noqa: E402
from tests.torch_models import backward, batches, build  # noqa: E402


@pytest.mark.filterwarnings("ignore")  # accelerate's own, of what this machine lacks
def test_accelerate(tmp_path):
    """Prepared, scheduled, saved and loaded: the bits of the optimizer by itself."""

    def make():
        model = build("transformer")
        opt = fastlr.torch.AdamW(model.parameters(), lr=1e-3)
        return model, opt, torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)

    plain, opt, scheduler = make()
    data = batches("transformer", 6)
    for batch in data:
        opt.zero_grad()
        backward(plain, batch)
        opt.step()
        scheduler.step()

    accelerator = accelerate.Accelerator(cpu=True)
    model, opt, scheduler = accelerator.prepare(*make())
    for t, (x, y) in enumerate(data):
        if t == 3:
            accelerator.save_state(tmp_path)
            with torch.no_grad():
                for p in model.parameters():
                    p.zero_()
            opt.state.clear()
            accelerator.load_state(tmp_path)
        opt.zero_grad()
        accelerator.backward(torch.nn.functional.cross_entropy(model(x), y))
        opt.step()
        scheduler.step()
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(p, q)
