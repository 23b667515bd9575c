# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The classifier of examples/hinge.py as a Cython extension whose whole loop runs without the GIL.

    cd examples/cython && python setup.py build_ext --inplace
    python -c "import train, hinge; print(train.train(*hinge.load(hinge.path()), 200))"      # with .. on PYTHONPATH
"""
cimport fastlr

import numpy as np

cdef double[4] ADAM = [0.9, 0.999, 1e-8, 0]  # adam_hyper, kernels/rules/adam.h


cdef float gradient(const float[:, ::1] x, const float[::1] y, const float *w, float b, float *gw, float *gb) noexcept nogil:
    """Adds the gradient of the loss, which it returns, to what gw and gb hold."""
    cdef Py_ssize_t i, j
    cdef float score, slack, r, loss = 0
    for i in range(x.shape[0]):
        score = b
        for j in range(x.shape[1]):
            score += w[j] * x[i, j]
        slack = 1 - y[i] * score
        if slack > 0:
            r = -2 * y[i] * slack
            for j in range(x.shape[1]):
                gw[j] += r * x[i, j]
            gb[0] += r
            loss += slack * slack
    return loss


def train(const float[:, ::1] x, const float[::1] y, int steps, double lr=0.05):
    """Weights and bias, one after the other."""
    cdef size_t[2] n = [<size_t>x.shape[1], 1]
    cdef size_t room = fastlr.scratch_size(2, n)
    cdef float[:, ::1] wide = np.zeros((4, x.shape[1]), np.float32)  # p, g and the two states of the weights
    cdef float[::1] bias = np.zeros(4, np.float32)                   # and of the bias
    cdef char[::1] scratch = np.zeros(room, np.int8)
    cdef void *p[2]
    cdef void *g[2]
    cdef void *s[4]
    p[:] = [&wide[0, 0], &bias[0]]
    g[:] = [&wide[1, 0], &bias[1]]
    s[:] = [&wide[2, 0], &wide[3, 0], &bias[2], &bias[3]]
    cdef double scale = 1 / <double>x.shape[0]
    cdef int status = 0, t
    with nogil:
        for t in range(1, steps + 1):
            gradient(x, y, &wide[0, 0], bias[0], &wide[1, 0], &bias[1])
            status = fastlr.update("adam", 0, 2, n, p, g, s, t, lr, scale, 0, 0.01, 1.0, ADAM, 4, NULL, True, False, 0,
                                   &scratch[0], room, NULL)
            if status:
                break
    if status:
        raise ValueError(fastlr.message(status).decode())
    return np.append(wide[0], bias[0])
