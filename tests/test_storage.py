"""Checkpoint files: exact, atomic, strict, and safetensors as others read it."""

import json
import math
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

import fastlr
from fastlr import storage

TREE = {
    "number": 0.1,
    "big": 2**130,
    "nothing": None,
    "yes": True,
    "list": [1, "two", [math.inf, -math.inf]],
    "arrays": {
        "f": np.float32([[1.5, math.nan]]),
        "d": np.array(2.0),
        "empty": np.zeros((0, 3)),
        "bytes": np.arange(3, dtype=np.uint8),
        "words": np.arange(3, dtype=np.uint16),
        "flags": np.array([True, False]),
    },
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return (storage.kind(a), a.shape, a.tobytes()) == (storage.kind(b), b.shape, b.tobytes())
    return type(a) is type(b) and a == b


def test_everything_comes_back(path):
    storage.write(path, TREE)
    assert same(storage.read(path), TREE)


def test_an_array_alone_and_not_numbers(path):
    storage.write(path, np.arange(3.0))
    assert np.array_equal(storage.read(path), [0, 1, 2])
    storage.write(path, [math.nan, np.float32(0.5), np.int64(3), (1, 2)])
    nan, *others = storage.read(path)
    assert math.isnan(nan)
    assert others == [0.5, 3, [1, 2]]


def test_the_safetensors_library_reads_it(path):
    storage.write(path, TREE)
    arrays = load_file(path)
    assert {f"arrays.{k}" for k in TREE["arrays"]} == set(arrays)
    assert all(same(arrays[f"arrays.{k}"], a) for k, a in TREE["arrays"].items())


def test_bfloat16_is_the_formats_own(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    tree = {"half": np.uint16([[0x3F80, 0xC000]]).view(storage.Bfloat16), "word": np.uint16([0x3F80])}
    storage.write(path, tree)
    assert same(storage.read(path), tree)
    arrays = load_file(path)
    assert torch.equal(arrays["half"], torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16))
    assert arrays["word"].dtype == torch.uint16


@pytest.mark.parametrize("options", [{"state_dtype": "bfloat16"}, {"rounding": "kahan"}, {"master": "split"}], ids=str)
def test_state_in_bfloat16_is_bfloat16_in_its_file(path, options):
    start = np.zeros(5, np.uint16)
    opt = fastlr.AdamW(start, dtype="bfloat16", **options)
    opt.save(path)
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    moment = "BF16" if "state_dtype" in options else "F32"
    beside = {"kahan": {"beside.lost.0": "BF16"}, "split": {"beside.low.0": "U16"}}
    assert found == {"state.m.0": moment, "state.v.0": moment, **beside.get(next(iter(options.values())), {})}
    saved = opt.state_dict()
    for part in (saved["state"]["m"], *saved["beside"].values()):
        ours = part["0"]
        part["0"] = ours.view(np.ndarray) if isinstance(ours, storage.Bfloat16) else ours.astype(np.int16)
        with pytest.raises(ValueError, match=r"dtype must be '(bfloat16|float32|uint16)', got '(u?int16)'"):
            opt.load_state_dict(saved)
        part["0"] = ours
    opt.load_state_dict(saved)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": object()}, "a must be made of"),
        ({"a": {1: 2}}, "a: keys must be strings"),
        ({"$array": 1}, "without a leading"),
        ({"a": np.array(["x"])}, "cannot be saved"),
        ([{"a": 1j}], "0.a must be made of"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_the_old_file_stays(path, tree, message):
    storage.write(path, 1)
    with pytest.raises(TypeError, match=message):
        storage.write(path, tree)
    assert storage.read(path) == 1


def test_two_arrays_of_one_name_are_refused(path):
    with pytest.raises(ValueError, match=r"named 'a\.b'"):
        storage.write(path, {"a": {"b": np.ones(1)}, "a.b": np.ones(1)})


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch):
    storage.write(path, {"a": np.ones(4)})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write(path, {"a": np.zeros(4)})
    assert np.array_equal(storage.read(path)["a"], np.ones(4))
    assert os.listdir(path.parent) == [path.name]


def test_permissions_are_those_of_any_new_file_and_links_are_followed(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    storage.write(link, 1)
    (tmp_path / "plain").touch()
    assert link.is_symlink()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_every_damage_is_noticed(path):
    storage.write(path, {"a": np.arange(4, dtype=np.uint8), "b": [1.5]})
    good = path.read_bytes()
    for k in range(len(good)):
        path.write_bytes(good[:k])
        with pytest.raises(ValueError, match="is not a checkpoint that can be loaded"):
            storage.read(path)
    for k in range(8 + int.from_bytes(good[:8], "little"), len(good)):
        path.write_bytes(good[:k] + bytes([good[k] ^ 1]) + good[k + 1 :])
        with pytest.raises(ValueError, match="checksum"):
            storage.read(path)
    path.write_bytes(good + b"x")
    with pytest.raises(ValueError, match="size"):
        storage.read(path)


def craft(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


META = {"format": storage.FORMAT, "tree": '{"$array": "a"}', "crc32": "00000000"}


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"\xff",
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        {},
        {"__metadata__": {**META, "format": "fastlr 0"}},
        {"__metadata__": META},
        {"__metadata__": {**META, "tree": "1"}, "a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
        {"__metadata__": META, "a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
        {"__metadata__": META, "a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}},
        {"__metadata__": META, "a": {"dtype": "O", "shape": [0], "data_offsets": [0, 0]}},
        {"__metadata__": META, "a": {"dtype": "F32", "shape": "ab", "data_offsets": [0, 0]}},
        {"__metadata__": META, "a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}},
    ],
)
def test_crafted_files_are_refused(path, header):
    craft(path, header, b"abcd")
    with pytest.raises(ValueError, match="is not a checkpoint that can be loaded"):
        storage.read(path)


@pytest.mark.parametrize("rule", [fastlr.AdamW, fastlr.SGD, fastlr.Adagrad])
def test_an_optimizer_goes_on_from_its_file(path, rule):
    random = np.random.default_rng(0)
    grads = random.normal(size=(6, 50)).astype(np.float32)
    ours, theirs = np.ones(50, np.float32), np.ones(50, np.float32)
    one = rule(ours, lr=0.1)
    for g in grads[:3]:
        one.step(g)
    one.save(path)
    theirs[:] = ours
    two = rule(theirs, lr=0.5)
    two.load(path)
    assert two.groups[0].lr == 0.1
    for g in grads[3:]:
        one.step(g)
        two.step(g)
    assert np.array_equal(ours, theirs)
    assert two.step_count == 6


def test_a_file_of_another_rule_changes_nothing(path):
    fastlr.Adam(np.ones(3)).save(path)
    opt = fastlr.SGD(np.ones(3), lr=0.25)
    with pytest.raises(ValueError, match="state_dict"):
        opt.load(path)
    assert (opt.groups[0].lr, opt.step_count) == (0.25, 0)
