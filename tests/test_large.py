"""More than 2^31 elements, in 64 MiB of memory: the same pages are mapped over and over, one after another.

Every address is an element of its own to fastlr, but element k and element k + PAGES share memory. On one thread the
sweep goes through them in order, so a gradient of g moves the shared parameter by g once for each of its addresses:
the sum tells whether each element was visited, and once.
"""

import ctypes
import mmap
import os

import numpy as np
import pytest

import fastlr

N = 2**31 + 12_345  # elements
UNIT = 1 << 24  # elements of real memory

libc = ctypes.CDLL(None, use_errno=True)


def wrapped(values):
    """An array of N elements whose element k is that of `values` at k mod UNIT, and shares its memory."""
    fd = os.memfd_create("fastlr-test")
    os.truncate(fd, UNIT * 4)
    real = np.frombuffer(mmap.mmap(fd, UNIT * 4), np.float32)
    real[:] = values
    whole = mmap.mmap(-1, -(-N // UNIT) * UNIT * 4)
    address = np.frombuffer(whole, np.uint8).ctypes.data
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    MAP_SHARED, MAP_FIXED = 0x01, 0x10
    for k in range(-(-N // UNIT)):
        at = address + k * UNIT * 4
        assert libc.mmap(at, UNIT * 4, mmap.PROT_READ | mmap.PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at
    os.close(fd)
    return real, np.frombuffer(whole, np.float32, N)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
def test_more_elements_than_int32_counts():
    g_real, g = wrapped(np.arange(UNIT) % 7 + 1)
    p_real, p = wrapped(0)
    with fastlr.num_threads(1):
        report = fastlr.SGD(p, lr=1).step(g, clip_norm=1e9)
    visits = np.full(UNIT, N // UNIT)
    visits[: N % UNIT] += 1
    np.testing.assert_array_equal(p_real, -g_real * visits)
    assert report.grad_norm == np.sqrt(np.sum(visits * g_real.astype(np.float64) ** 2))
