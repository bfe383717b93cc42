"""What a task and seed leaves to read when it failed."""

import logging

import pytest

from taskeff.run.logs import published_log
from taskeff.storage import Store


def test_a_log_holds_what_was_said_and_how_it_ended(tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="broken"), published_log(store, "sorting-0"):
        logging.getLogger("taskeff.curves").info("budget 50")
        raise ValueError("broken")
    (name,) = store.names("logs", "sorting-0")
    text = store.read_bytes("logs", "sorting-0", name).decode()
    assert "INFO taskeff.curves: budget 50" in text
    assert text.rstrip().endswith("ValueError: broken")
    with published_log(store, "silent-0"):
        pass
    assert not store.names("logs", "silent-0")
