"""`pytest bench/`: the pytest-benchmark face, and tests of what the numbers rest on."""

import math
from dataclasses import replace

import numpy as np
import pytest

import fastlr
from bench import clock, compare, engines, kept, readme
from bench.cases import RULES, Case, Data, parse_size
from bench.check import FACTORS, OF_PATH, excess, norm_error, verify
from bench.clock import Times
from bench.engines.base import Engine
from bench.engines.ours import Fastlr

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


def test_readme_is_rewritten_between_the_markers_only(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"head\n{readme.BEGIN}\nold\n{readme.END}\ntail\n")
    result = compare.Result(Case("adamw", 1000))
    result.times = {"fastlr": Times([2e3]), "floor": Times([1e3]), "torch fused": Times([60e3])}
    result.excuses = {"deepspeed": "DISAGREES: off by 3 times the tolerance"}
    readme.rewrite(path, readme.section([result], "python -m bench.readme"))
    text = path.read_text()
    assert text.startswith(f"head\n{readme.BEGIN}\n|")
    assert text.endswith(f"\n{readme.END}\ntail\n")
    assert "old" not in text
    assert "| 2.00 us |" in text
    assert "60.0 us (30.0x)" in text
    assert "DISAGREES" in text
    path.write_text("no markers")
    with pytest.raises(SystemExit, match="must hold the lines"):
        readme.rewrite(path, "x")


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
