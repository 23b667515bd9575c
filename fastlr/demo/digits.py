"""The data: 8 x 8 pictures of handwritten digits, which scikit-learn ships with, so that nothing is downloaded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

from fastlr.buffers import Array

TEST_SHARE = 0.25
_SEED = 0
_WHITE = 16  # pixels are integers from 0 to this


class Digits(NamedTuple):
    """Pictures as rows of 64 float32 in [0, 1], and the digit that each shows."""

    train_x: Array
    train_labels: Array
    test_x: Array
    test_labels: Array


def load() -> Digits:
    """The digits, each class split between training and test in the same proportion; always the same split."""
    pictures, labels = load_digits(return_X_y=True)
    x = (pictures / _WHITE).astype(np.float32)
    train_x, test_x, train_labels, test_labels = train_test_split(
        x, labels, test_size=TEST_SHARE, stratify=labels, random_state=_SEED
    )
    return Digits(train_x, train_labels, test_x, test_labels)
