"""Rows outside memory: a sequence like a tuple, hashed and published without holding them."""

import pickle

import pytest

from taskeff.errors import StorageError
from taskeff.storage import Store, digest
from taskeff.tasks.examples import BATCH, Example, Examples, RowFile
from taskeff.tasks.task import Task, load_spec, load_task

ROWS = [(f"train-{i}", f'row "{i}"\n\u2028é', None if i % 7 == 3 else "a") for i in range(2500)]


@pytest.fixture(scope="module")
def task():
    return load_task(load_spec("name_gender"), 0)


def in_memory(task: Task) -> Task:
    return Task(task.spec, tuple(task.train), tuple(task.validation), tuple(task.test))


def test_rows_are_a_sequence():
    order = [*range(2500)][::-1]
    rows, plain = Examples(RowFile(ROWS), range(2499, -1, -1)), [Example(*ROWS[i]) for i in order]
    assert len(ROWS) > 2 * BATCH
    assert list(rows) == plain == rows and len(rows) == 2500
    assert rows[0] == plain[0] and rows[-1] == plain[-1] and rows[1024] == plain[1024]
    assert rows[5:2000:3] == plain[5:2000:3] and rows[5:2000][7:9] == plain[12:14]
    assert plain[17] in rows and rows != plain[1:]
    with pytest.raises(IndexError):
        rows[2500]
    assert pickle.loads(pickle.dumps(rows)) == tuple(plain)


def test_no_rows():
    rows = Examples(RowFile([]), range(0))
    assert list(rows) == [] and rows == ()


def old_hash(task: Task) -> str:
    """As it was made when all rows were in memory; published results carry it."""
    rows = [[(e.id, e.text, e.target) for e in s] for s in (task.train, task.validation, task.test)]
    spec = task.spec
    return digest([rows, spec.description, spec.doc_to_choice, spec.metric, spec.max_new_tokens])


def test_the_hash_is_that_of_all_rows(task):
    assert task.data_hash == old_hash(task) == in_memory(task).data_hash
    odd = Task(task.spec, [Example(*row) for row in ROWS], (), [Example("a", "\x00", "0")])
    assert odd.data_hash == old_hash(odd)
    assert Task(task.spec, (), (), ()).data_hash == old_hash(Task(task.spec, (), (), ()))


def test_subsets_do_not_depend_on_where_rows_lie(task):
    plain = in_memory(task)
    assert task.subset(64, 3) == plain.subset(64, 3)
    assert task.validation_subset(64) == plain.validation_subset(64)
    assert task.test_subset(20) == plain.test_subset(20)
    for cap in (None, 50, 10**6):
        assert (task.pool_rows(cap, 2) == plain.pool_rows(cap, 2)).all()


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_published_task_pickles_small_and_reads_its_rows(task, tmp_path, scheme, plain):
    store = Store(f"{scheme}{tmp_path}")
    moved = (in_memory(task) if plain else task).publish(store)
    assert store.names("tasks", "task=name_gender") == [f"{task.data_hash}.parquet"]
    pickled = pickle.dumps(moved)
    assert len(pickled) < 4000 < len(pickle.dumps(task)) / 10
    there: Task = pickle.loads(pickled)
    assert there.train == task.train == moved.train
    assert there.validation == task.validation and there.test[:9] == task.test[:9]
    assert there.data_hash == old_hash(there) == task.data_hash
    assert (there.pool_rows(None, 0) == task.pool_rows(None, 0)).all()
    assert pickle.loads(pickle.dumps(there)).train[3] == task.train[3]


def test_what_is_published_is_not_written_again(task, tmp_path):
    store = Store(str(tmp_path))
    task.publish(store)
    (path,) = tmp_path.rglob("*.parquet")
    written = path.stat().st_mtime_ns
    again = pickle.loads(pickle.dumps(task.publish(store)))
    assert path.stat().st_mtime_ns == written
    path.unlink()
    with pytest.raises(StorageError, match=r"cannot read .*parquet"):
        again.train[0]


def test_a_full_temporary_folder_is_said(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match=r"No space left.*set TMPDIR"):
        RowFile([])
