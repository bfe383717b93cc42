"""Storage: whole files or none, names that stay inside, digests that depend on content only."""

import json

import pyarrow as pa
import pytest

from taskeff.errors import StorageError, redact
from taskeff.storage import Store, canonical_json, digest, safe_part
from tests.filesystems import empty_bucket


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


def test_a_copy_on_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    store = Store(str(tmp_path / "store"))
    (tmp_path / "rows").write_bytes(b"x")

    def full(source, target):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(StorageError, match="the storage is full"):
        store.write_file(str(tmp_path / "rows"), "rows")
    assert store.names() == []


def test_a_truncated_file_is_named(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"a": [1, 2]})[:5], encoding="utf-8")
    with pytest.raises(StorageError, match=r"r\.json is not JSON"):
        Store(str(tmp_path)).read_json("r.json")


def test_credentials_never_show():
    assert redact("s3://key:secret@bucket/x") == "s3://***@bucket/x"


bucket = pytest.fixture(empty_bucket)


@pytest.mark.parametrize(
    "use",
    [
        Store.check_writable,
        lambda store: store.exists("a"),
        lambda store: store.find("a"),
        lambda store: store.read_json("a"),
        lambda store: store.find_json({0: ("a",)}),
        lambda store: store.write_bytes(b"", "a"),
        lambda store: store.create(b"", "a"),
        lambda store: store.names("a"),
        lambda store: store.remove("a"),
        lambda store: store.remove_tree("a"),
    ],
)
def test_whatever_a_backend_raises_is_one_error_without_credentials(bucket, use):
    store = Store("bucket://key:secret@shelf/run")
    bucket.fault = LookupError("EndpointConnectionError: s3://key:secret@shelf")
    with pytest.raises(StorageError, match=r"bucket://\*\*\*@shelf/run.*EndpointConn") as caught:
        use(store)
    assert "secret" not in str(caught.value)


def test_an_unknown_scheme_is_named():
    with pytest.raises(StorageError, match="cannot open nowhere://x"):
        Store("nowhere://x")


def test_a_table_that_is_none_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"t\.parquet"):
        Store(str(tmp_path)).read_table("t.parquet")


def test_many_files_are_found_with_a_request_each(bucket, caplog):
    store = Store("bucket://shelf/run")
    for n in range(40):
        store.write_json({"n": n}, f"{n}.json")
    store.write_bytes(b'{"n"', "7.json")
    bucket.asked.clear()
    found = store.find_json({n: (f"{n}.json",) for n in range(50)})
    assert found == {n: {"n": n} for n in range(40) if n != 7}
    assert len(bucket.asked) == 50
    assert {what for what, _ in bucket.asked} == {"read"}
    assert "7.json is not JSON" in caplog.text


def test_no_folder_is_asked_for_in_an_object_store(bucket, monkeypatch):
    """`makedirs` would make the bucket of a typing error."""
    made = []
    monkeypatch.setattr(bucket, "makedirs", lambda self, path, **_: made.append(path))
    Store("bucket://shelf/run").write_bytes(b"x", "a")
    assert made == ["/shelf/run"]
    monkeypatch.setattr(bucket, "protocol", ("s3", "s3a"))
    Store("bucket://shelf/other").write_bytes(b"x", "a")
    assert made == ["/shelf/run"]
