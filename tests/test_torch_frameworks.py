"""fastlr.torch in what wraps torch's optimizers: accelerate, Lightning, Hugging Face's Trainer, other processes."""

import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")
lightning = pytest.importorskip("lightning")
transformers = pytest.importorskip("transformers")

import fastlr.torch  # noqa: E402
from tests.test_torch import one_thread  # noqa: E402, F401 - for all tests
from tests.torch_models import backward, batches, build, step_with  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # their own, of what this machine lacks


def make(module=fastlr.torch, kind="transformer"):
    model = build(kind)
    opt = module.AdamW(model.parameters(), lr=1e-3)
    return model, opt, torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)


def loss_of(model, x, y):
    return torch.nn.functional.cross_entropy(model(x), y)


def trained(data):
    """By a loop of one's own."""
    model, opt, scheduler = make()
    for batch in data:
        opt.zero_grad()
        backward(model, batch)
        opt.step()
        scheduler.step()
    return model


def assert_same(model, other):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_accelerate(tmp_path):
    """Prepared, scheduled, saved and loaded: the bits of the optimizer by itself."""
    accelerator, data = accelerate.Accelerator(cpu=True), batches("transformer", 6)
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
        accelerator.backward(loss_of(model, x, y))
        opt.step()
        scheduler.step()
    assert_same(trained(data), model)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.opt, self.scheduler = make()

    def training_step(self, batch, index):
        return loss_of(self.model, *batch)

    def configure_optimizers(self):
        return [self.opt], [{"scheduler": self.scheduler, "interval": "step"}]


def test_lightning(tmp_path):
    """Which steps with a closure; from its checkpoint another trainer goes on."""

    def trainer(steps):
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        return lightning.Trainer(accelerator="cpu", max_steps=steps, default_root_dir=tmp_path, **quiet)

    data = batches("transformer", 1) * 3  # one, since Lightning begins again somewhere in an epoch
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    first, second = Module(), Module()
    start = trainer(3)
    start.fit(first, loader)
    start.save_checkpoint(tmp_path / "state")
    with torch.no_grad():
        for p in second.parameters():
            p.zero_()
    trainer(6).fit(second, loader, ckpt_path=tmp_path / "state", weights_only=False)
    assert_same(trained(data), first.model)
    assert_same(trained([*data, *data]), second.model)


class WithLoss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return {"loss": loss_of(self.model, x, y)}


def test_trainer(tmp_path):
    """As with torch's optimizer; and with the same bits after a stop and a new start."""
    x, y = batches("resnet", 1)[0]
    data = [{"x": x[k % len(x)], "y": y[k % len(y)]} for k in range(24)]

    def run(where, steps, module=fastlr.torch, resume=None):
        model, opt, scheduler = make(module, "resnet")  # the Trainer's files have no tied weights
        options = transformers.TrainingArguments(
            str(tmp_path / where),
            max_steps=steps,
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_steps=3,
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(WithLoss(model), options, train_dataset=data, optimizers=(opt, scheduler))
        trainer.train(resume_from_checkpoint=resume)
        return model

    ours, theirs = run("ours", 6), run("theirs", 6, torch.optim)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)
    assert_same(ours, run("again", 6, resume=str(tmp_path / "ours" / "checkpoint-3")))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_multiprocessing(method):
    """Parameters and state in shared memory, where torch moves them: another process steps, then this one."""
    data, models = batches("transformer", 3), []
    for shared in (False, True):
        model, opt, _ = make()
        for t, batch in enumerate(data):
            opt.zero_grad()
            backward(model, batch)
            if not shared or t != 1:
                opt.step()
                continue
            grads = [p.grad for p in model.parameters()]
            model.share_memory()
            for slot in opt.state.values():
                for x in slot.values():
                    x.share_memory_()
            opt.zero_grad()
            context = torch.multiprocessing.get_context(method)
            process = context.Process(target=step_with, args=(model, opt, grads), daemon=True)
            process.start()
            process.join(300)
            assert process.exitcode == 0
        models.append(model)
    assert_same(*models)
