"""FlatBuffer, allocation, and what counts as an array."""

import copy
import os
import pickle

import numpy as np
import pytest

import fastlr
from fastlr.buffers import allocate, as_array
from tests.processes import in_a_fresh_process


def test_layout():
    buf = fastlr.FlatBuffer({"w": (2, 3), "s": (), "e": (0, 4), "b": (3,)}, np.float64)
    assert buf.data.shape == (10,)
    assert buf.names == ("w", "s", "e", "b")
    assert (buf.slice("w"), buf.slice("s"), buf.slice("e"), buf.slice("b")) == (
        slice(0, 6),
        slice(6, 7),
        slice(7, 7),
        slice(7, 10),
    )
    buf["w"][1, 2] = 5
    buf["s"][...] = 6
    np.testing.assert_array_equal(buf.data[5:7], [5, 6])
    assert all(np.shares_memory(buf[n], buf.data) for n in ("w", "s", "b"))
    assert list(buf) == list(buf.names)
    assert len(buf) == 4
    assert "w" in buf
    assert "x" not in buf
    assert buf.dtype == np.float64


@pytest.mark.parametrize("size", [0, 1, 1000, 16_383, 16_384, 100_000, (2 << 20) // 4, 3_000_001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_allocations_are_aligned_zeros(size, dtype):
    x = allocate(size, dtype)
    assert x.shape == (size,)
    assert x.ctypes.data % 64 == 0 or size == 0
    assert x.flags.writeable
    assert not x.any()
    x[:] = 1
    assert x.sum() == size


def test_allocations_do_not_overlap():
    arrays = [allocate(size, np.float32) for size in (20_000, 300_000, 100_000, 600_000, 20_001, 1_000_000, 50_000)]
    for k, x in enumerate(arrays):
        x[:] = k + 1
    for k, x in enumerate(arrays):
        assert (x == k + 1).all()


@in_a_fresh_process
def test_a_fork_has_memory_of_its_own():
    x = allocate(100_000, np.float32)
    pid = os.fork()
    if pid == 0:
        x[:] = 1
        os._exit(0)
    os.waitpid(pid, 0)
    assert not x.any()


@pytest.mark.skipif(not os.path.exists("/sys/kernel/mm/transparent_hugepage/enabled"), reason="Linux with huge pages")
def test_large_buffers_ask_for_huge_pages():
    x = allocate(8 << 20, np.uint8)
    with open("/proc/self/smaps") as file:
        for line in file:
            first, _, rest = line.partition("-")
            try:
                inside = int(first, 16) <= x.ctypes.data < int(rest.split()[0], 16)
            except (ValueError, IndexError):
                if inside and line.startswith("VmFlags"):
                    assert "hg" in line.split()
                    return
    raise AssertionError("mapping not found")


def test_pack_copies():
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    buf = fastlr.FlatBuffer.pack({"w": w.T, "b": np.float32(7)})
    np.testing.assert_array_equal(buf["w"], w.T)
    assert buf["b"] == 7
    buf.data[:] = 0
    assert w.any()


def test_like_is_zeros_of_the_layout():
    buf = fastlr.FlatBuffer.pack({"w": np.ones(3)})
    other = buf.like()
    assert (other.shapes, other.dtype) == (buf.shapes, buf.dtype)
    assert not other.data.any()


def test_over_does_not_copy():
    data = np.zeros(5, np.float32)
    buf = fastlr.FlatBuffer.over({"a": (2,), "b": (3,)}, data)
    buf["b"][:] = 1
    np.testing.assert_array_equal(data, [0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        fastlr.FlatBuffer.over({"a": (2,), "b": (3,)}, np.zeros(6, np.float32))


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_views_and_data_together(clone):
    buf = fastlr.FlatBuffer.pack({"w": np.ones(3, np.float32)})
    other = clone(buf)
    other["w"][0] = 9
    assert other.data[0] == 9
    assert buf.data[0] == 1
    assert repr(other) == repr(buf) == "FlatBuffer({'w': (3,)}, 'float32')"


def test_refused():
    for shapes, dtype, error, part in [
        ([(2,)], np.float32, TypeError, "mapping"),
        ({1: (2,)}, np.float32, TypeError, "names"),
        ({"a": (-1,)}, np.float32, ValueError, "shapes['a']"),
        ({"a": (1.5,)}, np.float32, ValueError, "shapes['a']"),
        ({"a": (True,)}, np.float32, ValueError, "shapes['a']"),
        ({"a": (2,)}, np.int16, TypeError, "int16"),
        ({"a": (2,)}, np.int32, TypeError, "int32"),
    ]:
        with pytest.raises(error) as caught:
            fastlr.FlatBuffer(shapes, dtype)
        assert part in str(caught.value)
    with pytest.raises(TypeError, match="one dtype, got float32, float64"):
        fastlr.FlatBuffer.pack({"a": np.zeros(1), "b": np.zeros(1, np.float32)})
    with pytest.raises(KeyError, match="no array 'x'; there are a, b"):
        fastlr.FlatBuffer({"a": (1,), "b": (1,)})["x"]


def test_as_array_never_copies():
    x = np.ones(3, np.float32)
    assert as_array("x", x) is x
    assert np.shares_memory(as_array("x", memoryview(x)), x)
    buf = fastlr.FlatBuffer({"a": (2,)})
    assert as_array("x", buf) is buf.data
    with pytest.raises(TypeError, match=r"x must be an array that can be updated in place .* got list"):
        as_array("x", [1.0])
