"""Storage: whole files or none, names that stay inside, digests that depend on content only."""

import json

import pyarrow as pa
import pytest

from taskeff.errors import StorageError
from taskeff.storage import Store, canonical_json, digest, redact, safe_part


def test_digest_ignores_key_order_only():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})


def test_nan_never_reaches_a_file():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"score": float("nan")})


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "a b", "ä", "a\x00"])
def test_unsafe_names_are_refused(name):
    with pytest.raises(StorageError, match="cannot name a folder"):
        safe_part(name)


@pytest.mark.parametrize("uri", ["local", "memory"])
def test_round_trip(uri, tmp_path):
    store = Store(str(tmp_path / "deep" / "er") if uri == "local" else "memory://bucket/run")
    store.check_writable()
    store.write_json({"x": 1}, "a", "b.json")
    store.write_table(pa.table({"n": [1, 2]}), "a", "t.parquet")
    assert store.read_json("a", "b.json") == {"x": 1}
    assert store.read_table("a", "t.parquet").to_pydict() == {"n": [1, 2]}
    assert store.names("a") == ["b.json", "t.parquet"]
    assert store.child("a").exists("b.json")
    store.remove("a", "b.json")
    assert not store.exists("a", "b.json")


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    store = Store(str(tmp_path))
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="taken"):
        store.write_bytes(b"x", "taken")
    assert store.names() == ["taken"]


def test_a_truncated_file_is_named(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"a": [1, 2]})[:5], encoding="utf-8")
    with pytest.raises(StorageError, match=r"r\.json is not JSON"):
        Store(str(tmp_path)).read_json("r.json")


def test_credentials_never_show():
    assert redact("s3://key:secret@bucket/x") == "s3://***@bucket/x"
