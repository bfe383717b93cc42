"""The made-up tasks of the estimate's tests."""

from tests.estimate.conftest import cases  # noqa: F401 - a fixture
