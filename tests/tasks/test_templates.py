"""What a template may print: text, numbers, truth values, nothing, lists of these."""

import pytest

from taskeff.errors import DataError
from taskeff.tasks.templates import render

ROW = {
    "text": "x",
    "n": 3,
    "zero": 0,
    "nothing": None,
    "words": ["p", "q"],
    "answers": {"items": [1, 2], "count": 5, "text": "t"},
    "spans": [{"start": 1}],
    "raw": b"\xff",
    "question-X": "y",
}


def printed(template):
    return render(template, ROW, field="doc_to_text")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{text}} {{n}} {{nothing}}{{n > 2}}", "x 3 True"),
        ('{{doc["question-X"]}}', "y"),
        ("{{answers.items[0]}} {{answers.count}}", "1 5"),
        ("{{spans[0].start}}", "1"),
        ("{{words}}", "['p', 'q']"),
        ("{{text.upper()}} {{words | join(' ')}}", "X p q"),
        ("{{answers.keys() | list}}", "['items', 'count', 'text']"),
        ("{{answers | tojson}}", '{"count": 5, "items": [1, 2], "text": "t"}'),
        ("{% for word in words %}{{loop.index}}{{word}}{% endfor %}", "1p2q"),
    ],
)
def test_plain_values_are_printed(template, text):
    assert printed(template) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{answers}}", "prints the fields of 'answers' (items, count, text) as Python writes"),
        ("{{'a' ~ answers}}", "prints the fields of 'answers'"),
        ("{{'%s' | format(answers)}}", "prints the fields of 'answers'"),
        ("{{spans}}", "prints the fields of 'spans' (start)"),
        ("{{spans | join}}", "prints the fields of 'spans'"),
        ("{{doc}}", "prints the fields of 'doc'"),
        ("{{ {'a': 1} }}", "prints a dict"),
        ("{{text.upper}}", "prints the method 'upper'; no column or field is called that"),
        ("{{'a' ~ text.upper}}", "prints the method 'upper'"),
        ("{{raw}}", "prints 'raw', which holds bytes that are not UTF-8 text"),
        ("{{'a' ~ raw}}", "prints 'raw'"),
        ("{{words | map('upper')}}", "prints a generator"),
        ("{{range(3)}}", "prints a range"),
        ("{{cycler}}", "prints a"),
        ("{{answers.missing}}", "has no attribute 'missing'; columns are: text, n, zero"),
        ("{{'a' ~ answers.missing}}", "has no attribute 'missing'"),
        ("{{missing}}", "'missing' is undefined; columns are"),
        ("{{n / zero}}", "ZeroDivisionError: division by zero"),
        ("{{10.0 ** 400}}", "OverflowError"),
        ("{% macro f() %}{{f()}}{% endmacro %}{{f()}}", "RecursionError"),
        ("{{'x' * 10 ** 15}}", "MemoryError"),
        ("{{text > 1}}", "TypeError"),
        ("{{words | random}}", "No filter named 'random'"),
        ("{{lipsum()}}", "'lipsum' is undefined"),
    ],
)
def test_anything_else_is_an_error_of_the_row(template, message):
    with pytest.raises(DataError, match=r"^doc_to_text: ") as caught:
        printed(template)
    assert message in str(caught.value)
