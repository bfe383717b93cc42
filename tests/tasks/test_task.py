"""Task files to examples: splits disjoint and seeded, budgets nested, templates sandboxed."""

import json

import datasets
import pytest
import yaml

from taskeff.errors import DataError
from taskeff.tasks.rows import PoolStream
from taskeff.tasks.source import source_rows
from taskeff.tasks.task import TaskSpec, load_spec, load_task
from taskeff.tasks.templates import render
from tests.helpers import write_task_file


def spec(**changes) -> TaskSpec:
    return load_spec("name_gender").model_copy(update=changes)


def test_splits_are_disjoint_and_seeded():
    task = load_task(spec(), 0)
    texts = [{e.text for e in split} for split in (task.train, task.validation, task.test)]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert (len(task.test), len(task.validation)) == (300, 100)
    assert load_task(spec(), 0).data_hash == task.data_hash
    assert load_task(spec(), 1).data_hash != task.data_hash


def test_budgets_are_nested_prefixes():
    task = load_task(spec(), 0)
    small, large = task.subset(8, 5), task.subset(32, 5)
    assert large[:8] == small
    assert task.subset(8, 6) != small
    with pytest.raises(DataError, match="above its"):
        task.subset(len(task.train) + 1, 0)


def test_a_pool_is_distinct_training_rows():
    task = load_task(spec(), 0)
    rows = task.pool_rows(50, 0).tolist()
    assert len(set(rows)) == 50
    assert set(rows) < set(range(len(task.train)))


def test_validation_is_at_most_a_fifth_of_the_budget():
    task = load_task(spec(), 0)
    assert [len(task.validation_subset(n)) for n in (1, 8, 50, 5000)] == [1, 1, 10, 100]


def test_an_unlabelled_pool_needs_no_labels(tmp_path):
    lines = [json.dumps({"text": f"row {i % 40}"}) for i in range(50)]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines), encoding="utf-8")
    values = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": "pool.jsonl"},
        "doc_to_text": "{{text}}",
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert len(list(PoolStream(load_spec(path), 0))) == 40
    with pytest.raises(DataError, match="doc_to_target is missing"):
        load_task(load_spec(path), 0)


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{% for x in range(3) %}{{ x.__globals__ }}{% endfor %}"],
)
def test_templates_cannot_reach_python(template):
    with pytest.raises((DataError, Exception), match=r"unsafe|SecurityError|undefined|attribute"):
        render(template, {"text": "x"}, field="doc_to_text")


def test_a_path_is_no_task_name(tmp_path):
    path = tmp_path / "bad.yaml"
    values = {"task": "../x", "dataset_path": "json", "doc_to_text": "a", "doc_to_target": "b"}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(DataError, match="cannot name a folder"):
        load_spec(path)


def written(folder, rows, **fields):
    return load_spec(write_task_file(folder, rows, **fields))


def test_yes_and_no_without_quotes_are_explained(tmp_path):
    with pytest.raises(DataError, match=r"YAML reads yes/no .* write them in quotes"):
        written(tmp_path, [], doc_to_choice=[True, False])
    with pytest.raises(DataError, match="doc_to_choice: 1 is no text; write it in quotes"):
        written(tmp_path, [], doc_to_choice=[1, 2])


def test_a_text_with_two_answers_is_noted(tmp_path, caplog):
    rows = [{"text": f"t{i % 15}", "label": "ab"[i // 18]} for i in range(21)]
    task = load_task(written(tmp_path, rows), 0)
    (note,) = task.notes
    assert "3 rows repeat a text with another answer and are left out" in note
    assert "train row 3 of rows.jsonl says 'a', train row 18 of rows.jsonl says 'b'" in note
    assert note in caplog.text
    assert load_task(written(tmp_path, rows[:18]), 0).notes == ()


def test_a_row_that_cannot_be_read_is_named_by_its_line(tmp_path):
    spec = written(tmp_path, [{"text": "a", "label": "b"}] * 2)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match=r"'mine'.*rows\.jsonl, line 3: not JSON"):
        load_task(spec, 0)


def test_pictures_stay_undecoded_in_whatever_they_are_nested(tmp_path, monkeypatch):
    """A file's metadata may declare a column of pictures; decoded, they are objects that save."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    picture = {"bytes": b"\x89PNG", "path": None}
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "one": datasets.Image(),
            "many": datasets.List(datasets.Image()),
            "label": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    columns = {"text": ["x"], "one": [picture], "many": [[picture]], "label": [1]}
    folder = tmp_path / "data"
    folder.mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "train.parquet")
    for source, options in ((str(folder), {}), ("parquet", {"data_files": f"{folder}/*.parquet"})):
        read = TaskSpec(
            task="t", dataset_path=source, dataset_kwargs=options, doc_to_text="{{text}}"
        )
        (row,) = source_rows(read, "train", 0)
        assert render("{{text}} {{label}}", row.values, field="f") == "x 1"
        for template in ("{{ one.save('x') }}", "{{ many[0].save('x') }}"):
            with pytest.raises(DataError, match="no field 'save' in"):
                render(template, row.values, field="f")
        with pytest.raises(DataError, match=r"uses 'many\.bytes', which holds bytes"):
            render("{{ many[0].bytes }}", row.values, field="f")
