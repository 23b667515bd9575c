"""Nothing that a test needs is hidden here; only how values appear in the names of tests."""

from __future__ import annotations

from tests.cases import Case


def pytest_make_parametrize_id(config, val, argname):
    """A case by its id, a type by its name; others as pytest does."""
    if isinstance(val, Case):
        return val.id
    return val.__name__ if isinstance(val, type) else None
