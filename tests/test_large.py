"""More than 2^31 elements. Needs 9 GiB; gradients are untouched pages of zeros but for a few."""

import os

import numpy as np
import pytest

import fastlr
from fastlr.buffers import allocate

N = 2**31 + 4097 + 3
FREE = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(FREE < 12 << 30, reason="needs 12 GiB of free memory")
def test_more_elements_than_int32_counts():
    p, g = allocate(N, np.float32), allocate(N, np.float32)
    where = [0, 2**31 - 1, 2**31, 2**31 + 4096, N - 1]
    g[where] = [3, 4, 12, 84, 132]
    report = fastlr.SGD(p, lr=1).step(g, clip_norm=1e9, zero_grads=True)
    assert report.grad_norm == 157
    np.testing.assert_array_equal(p[where], [-3, -4, -12, -84, -132])
    p[where] = 0
    blocks = range(0, N, 1 << 28)
    assert not any(p[k : k + (1 << 28)].any() for k in blocks)
    assert not any(g[k : k + (1 << 28)].any() for k in blocks)
