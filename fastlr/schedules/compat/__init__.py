"""Other libraries' schedules: constructors with their names and arguments, which give their values, edges included.

`torch`, `optax`, `hf` (Hugging Face transformers), `keras` and `timm`. None of these libraries is needed: each
constructor returns a `Schedule`. Docstrings say where an edge is kept although it surprises, and where it is not.
"""

from fastlr.schedules.compat import hf, keras, optax, timm, torch

__all__ = ["hf", "keras", "optax", "timm", "torch"]
