"""The one reader: cells as they are written, faults by file and line, one error for a file."""

import bz2
import datetime
import decimal
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskeff.errors import DataError
from taskeff.tasks.readers import expanded, format_of, located, read_file
from taskeff.tasks.task import TaskSpec, load_task
from taskeff.tasks.templates import render


def read(path, content, kind="csv", **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_file(str(path), kind, options))


def values(path, content, kind="csv", **options):
    return [row.values for row in read(path, content, kind, **options)]


def errors(rows):
    return [(row.where.rsplit(", ", 1)[1], row.error) for row in rows if row.error]


CELLS = ["0113", "n/a", "None", "NA", "null", "1937-05-01", "1.10", "", "True", "1e5", "1" * 20]


@pytest.mark.parametrize("cell", CELLS)
def test_a_csv_cell_is_its_text(tmp_path, cell):
    assert values(tmp_path / "a.csv", f"a,b\nx,{cell}\n") == [{"a": "x", "b": cell}]


@pytest.mark.parametrize(
    "number",
    ["1.10", "1e5", "1E+05", "-0", "0", "1" * 20, "1" * 5000, "0.30000000000000004", "NaN"],
)
def test_a_json_number_is_printed_as_written(tmp_path, number):
    (row,) = values(tmp_path / "a.jsonl", f'{{"n": {number}, "in": [{number}]}}', "json")
    assert render("{{ n }}", row, field="f") == number
    assert render("{{ doc['in'][0] }}", row, field="f") == number
    assert isinstance(row["n"], int | float)


def test_json_numbers_count(tmp_path):
    (row,) = values(tmp_path / "a.jsonl", '{"up": 1.50, "total": 3}', "json")
    assert render("{{ up / total }} {{ up > 1 }}", row, field="f") == "0.5 True"


def test_arrow_values_stay_what_they_are(tmp_path):
    table = pa.table(
        {
            "day": [datetime.date(1937, 5, 1)],
            "at": [datetime.datetime(1937, 5, 1, 12)],
            "price": [decimal.Decimal("1.10")],
            "name": [b"caf\xc3\xa9"],
            "photo": [{"bytes": b"\xff\xd8", "path": "a.jpg"}],
            "code": ["0113"],
            "n": [None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = read_file(str(tmp_path / "a.parquet"), "parquet")

    def shown(template):
        return render(template, row.values, field="doc_to_text")

    template = "{{day}}|{{at}}|{{price}}|{{name}}|{{code}}|{{n}}|{{photo.path}}"
    assert shown(template) == "1937-05-01|1937-05-01 12:00:00|1.10|café|0113||a.jpg"
    with pytest.raises(DataError, match=r"'photo\.bytes', which holds bytes that are not UTF-8"):
        shown("{{ photo.bytes }}")


def test_a_parquet_value_that_python_cannot_hold_costs_its_row(tmp_path):
    days = pa.array([0, 10**8, 1], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"day": days}), tmp_path / "a.parquet")
    rows = list(read_file(str(tmp_path / "a.parquet"), "parquet"))
    assert [row.error is None for row in rows] == [True, False, True]
    assert rows[1].error.startswith("'day' cannot be read") and rows[1].where.endswith("row 2")


def test_every_format_gives_the_same_rows(tmp_path):
    rows = [{"text": f"row {i}", "label": f"0{i % 3}"} for i in range(7)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = "text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows)
    files = {
        "a.jsonl": lines,
        "a.json": json.dumps(rows, indent=1).encode(),
        "b.json": b"\xef\xbb\xbf" + lines,
        "a.jsonl.gz": gzip.compress(lines),
        "a.csv.bz2": bz2.compress(table.encode()),
        "a.csv": table.encode("utf-8-sig"),
        "b.csv": table.replace(",", ";").encode(),
        "a.tsv": table.replace(",", "\t").encode(),
        "b.tsv.gz": gzip.compress(table.replace(",", "\t").encode()),
        "w.csv": table.replace("\n", "\r\n").encode(),
    }
    for name, content in files.items():
        found = read(tmp_path / name, content, format_of(name))
        assert [row.values for row in found] == rows, name
        assert [row.index for row in found] == list(range(7)), name
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.pq")
    assert [r.values for r in read_file(str(tmp_path / "a.pq"), format_of("a.pq"))] == rows


OPTIONS = [
    ("csv", b"a|b\n1|2,3\n", {"delimiter": "|"}),
    ("csv", b"a|b\n1|2,3\n", {"sep": "|"}),
    ("csv", b"a,b\n1,'2,3'\n", {"quotechar": "'"}),
    ("csv", 'a,b\n1,"2,3"\n'.encode("utf-16"), {"encoding": "utf-16"}),
    ("csv", b'1,"2,3"\n', {"names": ["a", "b"]}),
    ("csv", b'1,"2,3"\n', {"column_names": ["a", "b"]}),
    ("json", b'{"n": 1, "data": [{"a": "1", "b": "2,3"}]}', {"field": "data"}),
    ("json", '{"a": "1", "b": "2,3"}'.encode("utf-16"), {"encoding": "utf-16"}),
]


@pytest.mark.parametrize(("kind", "content", "options"), OPTIONS)
def test_options_are_honoured(tmp_path, kind, content, options):
    assert values(tmp_path / "a", content, kind, **options) == [{"a": "1", "b": "2,3"}]


def test_columns_of_parquet(tmp_path):
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "a.parquet")
    (row,) = read_file(str(tmp_path / "a.parquet"), "parquet", {"columns": ["b"]})
    assert row.values == {"b": 2}
    with pytest.raises(DataError, match="no column 'c'; there are: a, b"):
        list(read_file(str(tmp_path / "a.parquet"), "parquet", {"columns": ["c"]}))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("csv", {"header": None}, "'header' is no option of csv files; there are: delimiter"),
        ("json", {"lines": True}, "'lines' is no option of json files; there are: field, encoding"),
        ("csv", {"delimiter": "||"}, "option delimiter: '||' is not one character"),
        ("csv", {"encoding": "utf-x"}, "'utf-x' is not a known encoding"),
        ("csv", {"names": "a"}, "option names: 'a' is not a list of names"),
        ("csv", {"sep": ";", "delimiter": ";"}, "delimiter and sep say the same"),
    ],
)
def test_other_options_are_refused_by_every_door(tmp_path, kind, options, message):
    path = tmp_path / f"a.{kind}"
    path.write_text("")
    with pytest.raises(DataError) as caught:
        list(read_file(str(path), kind, options))
    assert message in str(caught.value)
    fields = {"task": "t", "doc_to_text": "{{a}}", "dataset_path": kind}
    with pytest.raises(ValueError, match="dataset_kwargs: ") as refused:
        TaskSpec(**fields, dataset_kwargs={"data_files": str(path), **options})
    assert message in str(refused.value)


def test_rows_with_other_cells_than_the_header_are_named(tmp_path):
    rows = read(tmp_path / "a.csv", 'a,b\n"two\nlines",1\n\nx,y,z\nx\nlast,3\n')
    assert [row.where.rsplit(", ", 1)[1] for row in rows] == [f"line {n}" for n in (2, 5, 6, 7)]
    assert rows[0].values == {"a": "two\nlines", "b": "1"}
    assert [e.split(";")[0] for _, e in errors(rows)] == [
        "3 cells under 2 columns",
        "1 cells under 2 columns",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\nx,1,\ny,2,\n", "line 2 and all that follow: 3 cells under 2 columns"),
        ("a,b\n" + "x,1,\n" * 300, "line 2 and all that follow: 3 cells under 2 columns"),
        ("a,b,a\n1,2,3\n", "two columns are called 'a'; rename one"),
        (
            "a,b\nx,1\n".encode("utf-16"),
            "is UTF-16; save it as UTF-8, or of a task's data give `encoding",
        ),
        (b"caf\xe9,b\nx,1\n", "the header is not UTF-8; save the file as CSV UTF-8"),
    ],
)
def test_a_header_that_fits_no_row_is_one_error(tmp_path, content, message):
    with pytest.raises(DataError, match=r"a\.csv: ") as caught:
        read(tmp_path / "a.csv", content)
    assert message in str(caught.value)


def test_bad_rows_before_the_first_good_one_keep_their_places(tmp_path):
    rows = read(tmp_path / "a.csv", "a,b\n1\n2,3,4\n5,6\n")
    assert [(r.index, r.error is None) for r in rows] == [(0, False), (1, False), (2, True)]


def test_columns_without_a_name_are_left_out(tmp_path):
    assert values(tmp_path / "a.csv", "a,,\nx,,\n") == [{"a": "x"}]


@pytest.mark.parametrize(
    "content",
    [
        'text,label\nw,yes\n"x,no\ny,yes\nz",no\nlast,yes\n',
        'text,label\n"x,no\ny,yes\nz",no\nlast,yes\n',
        'label,text\nno,"x\nyes,y\nno,z"\nyes,last\n',
        'text,label\nw,yes\n"x,no\ny",yes\nz,no\n',
    ],
)
def test_a_quote_that_swallows_rows_is_noticed(tmp_path, content):
    rows = read(tmp_path / "a.csv", content)
    ((_, error),) = errors(rows)
    assert "lines that look like rows of their own; close the quote" in error
    assert rows[-1].values is not None


@pytest.mark.parametrize(
    "content",
    [
        'text,label\nw,yes\n"Dear sir,\nplease help",yes\n"Hi, a\nb, c\nd",yes\n',
        'label,text\nyes,"Dear sir,\nplease help"\nyes,"Hello, you\nthere"\n',
        'text,label\n"a\n\nb",yes\n"a, b\nc",yes\n',
    ],
)
def test_a_text_of_several_lines_is_no_fault(tmp_path, content):
    assert not errors(read(tmp_path / "a.csv", content))


@pytest.mark.parametrize("content", ['a,b\nx,1\n"y,2\nz,3\n', 'a,b\nx,1\n"y,2\n"z",3\nw,4\n'])
def test_a_quote_that_is_not_closed_names_its_line(tmp_path, content):
    rows = read(tmp_path / "a.csv", content)
    ((place, error),) = errors(rows)
    assert place == "line 3" and "look for a quote that is not closed" in error


@given(
    st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2), max_size=5)
)
def test_what_the_csv_module_writes_is_read(tmp_path_factory, cells):
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["a", "b"], *cells])
    assert [list(row.values.values()) for row in read_file(str(path), "csv")] == cells


def test_a_long_cell_is_read(tmp_path):
    (row,) = values(tmp_path / "a.csv", "a,b\n" + "x" * 300_000 + ",1\n")
    assert len(row["a"]) == 300_000


def test_bytes_that_are_no_text_cost_their_row(tmp_path):
    rows = read(tmp_path / "a.csv", b"a,b\ncaf\xe9,1\nx,2\n")
    ((place, error),) = errors(rows)
    assert place == "line 2"
    assert error.startswith("'a': not UTF-8; save the file as CSV UTF-8")
    assert values(tmp_path / "a.csv", b"a\ncaf\xe9\n", encoding="cp1252") == [{"a": "café"}]
    rows = read(tmp_path / "a.jsonl", b'{"a": "\xff"}\n{"a": "ok"}\n', "json")
    assert [place for place, _ in errors(rows)] == ["line 1"]


@pytest.mark.parametrize(
    "row", [r'{"a": "x\ud83d"}', r'{"b": {"c": ["\ude00"]}}', r'{"\ud83d": 1}']
)
@pytest.mark.parametrize("form", ["%s\n", '[{"a": 1}, %s]'])
def test_half_a_character_costs_its_row(tmp_path, row, form):
    ((_, error),) = errors(read(tmp_path / "a.json", form % row, "json"))
    assert "half a character" in error


@pytest.mark.parametrize("depth", [150, 50_000])
def test_deep_json_costs_its_row(tmp_path, depth):
    line = '{"a": ' + "[" * depth + "1" + "]" * depth + "}"
    rows = read(tmp_path / "a.jsonl", line + '\n{"a": 1}\n', "json")
    ((_, error),) = errors(rows)
    assert "nested too deeply" in error and rows[1].values == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n "data": [{"a": 1}]\n}\n', "is one object over many lines"),
        ('[{"a": 1} {"a": 2}]', "entry 1: not JSON: expected , or ]"),
        ('[{"a": 1}, {"a"', "entry 2: not JSON"),
        ('[{"a": 1},', "entry 2: not JSON"),
        ('[{"a": %s' % ("[" * 50_000), "entry 1: nested too deeply"),
        ('[{"a": 1}, {"a": x}' + ', {"a": "long"}' * 20_000, "entry 2: not JSON"),
    ],
)
def test_a_broken_list_names_the_entry(tmp_path, content, message):
    with pytest.raises(DataError, match=r"a\.json: ") as caught:
        read(tmp_path / "a.json", content, "json")
    assert message in str(caught.value)


@given(st.integers(0, 400), st.lists(st.integers(0, 90_000), max_size=6))
def test_a_list_is_read_in_pieces(tmp_path_factory, many, lengths):
    rows = [{"i": i, "t": "é]," * length} for i, length in enumerate([1] * many + lengths)]
    path = tmp_path_factory.mktemp("list") / "a.json"
    path.write_text(json.dumps(rows, ensure_ascii=many % 2 == 0, indent=many % 3))
    assert [row.values for row in read_file(str(path), "json")] == rows


def test_no_field_of_that_name(tmp_path):
    with pytest.raises(DataError, match="no field 'data'; it has rows"):
        read(tmp_path / "a.json", '{"rows": []}', "json", field="data")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.parquet", b"nothing of the kind", "parquet"),
        ("a.csv.gz", b"nothing of the kind", "csv"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9999)[:60], "json"),
        ("a.csv", b"a\nb\n", "csv"),
    ],
)
def test_whatever_is_raised_is_one_error(tmp_path, name, content, kind, monkeypatch):
    if name == "a.csv":
        monkeypatch.setattr("fsspec.core.url_to_fs", lambda path: 1 / 0)
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        read(tmp_path / name, content, kind)


def test_credentials_are_not_shown():
    with pytest.raises(DataError) as caught:
        list(read_file("nosuch://me:secret@host/rows.jsonl", "json"))
    assert "rows.jsonl" in str(caught.value) and "secret" not in str(caught.value)


def test_brackets_in_a_path_are_brackets(tmp_path):
    folder = tmp_path / "[v2] tickets"
    folder.mkdir()
    for name in ("a[1].csv", "b.csv"):
        (folder / name).write_text("a\nx\n")
    assert expanded(located("a[1].csv", str(folder))) == [str(folder / "a[1].csv")]
    both = expanded(located("*.csv", str(folder)))
    assert both == [str(folder / "a[1].csv"), str(folder / "b.csv")]
    assert expanded(located(str(folder / "b.csv"), "elsewhere")) == [str(folder / "b.csv")]
    with pytest.raises(DataError, match=r"\[v2\] tickets is a folder; name its files"):
        located(str(folder), ".")
    with pytest.raises(DataError, match=r"c\.csv does not exist"):
        located("c.csv", str(folder))


def test_files_of_a_split_are_numbered_through(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("text,label\n" + f"{name}1,x\n{name}2,y\n" * 9)
    spec = TaskSpec(
        task="t",
        dataset_path="csv",
        dataset_kwargs={"data_files": [str(tmp_path / "*.csv")]},
        doc_to_text="{{text}}",
        doc_to_target="{{label}}",
        test_size=1,
        validation_size=1,
    )
    task = load_task(spec, 0)
    ids = {e.text: e.id for e in (*task.train, *task.validation, *task.test)}
    assert ids == {"a1": "train-0", "a2": "train-1", "b1": "train-18", "b2": "train-19"}
