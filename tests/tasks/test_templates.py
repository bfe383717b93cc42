"""What a template may print, see and do: plain values, and a bounded amount of work."""

import threading

import pytest

from taskeff.errors import DataError
from taskeff.tasks.chat import render_chat
from taskeff.tasks.sandbox import BUDGET
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
        ("{{raw}}", "uses 'raw', which holds bytes that are not UTF-8 text"),
        ("{{'a' ~ raw}}", "uses 'raw'"),
        ("{{raw.hex()}}", "uses 'raw'"),
        ("{{words | map('upper')}}", "prints a generator"),
        ("{{range(3)}}", "prints a range"),
        ("{{cycler}}", "prints a"),
        (
            "{{answers.missing}}",
            "no field 'missing' in 'answers'; it has items, count, text; columns are: text, n",
        ),
        ("{{'a' ~ answers.missing}}", "no field 'missing' in 'answers'"),
        ("{{missing}}", "'missing' is undefined; columns are"),
        ("{{n / zero}}", "ZeroDivisionError: division by zero"),
        ("{{10.0 ** 400}}", "OverflowError"),
        ("{% macro f() %}{{f()}}{% endmacro %}{{f()}}", "RecursionError"),
        ("{{'x' * 10 ** 15}}", "takes more work than one rendering may"),
        ("{{text > 1}}", "TypeError"),
        ("{{words | random}}", "No filter named 'random'"),
        ("{{lipsum()}}", "'lipsum' is undefined"),
    ],
)
def test_anything_else_is_an_error_of_the_row(template, message):
    with pytest.raises(DataError, match=r"^doc_to_text: ") as caught:
        printed(template)
    assert message in str(caught.value)


class Picture:
    """A decoded column: an object with methods that do things."""

    saved = False

    def save(self, path):
        Picture.saved = True
        return path


@pytest.mark.parametrize(
    "template",
    [
        "{{ image.save('x') }}",
        "{{ image }}",
        "{{ image.size }}",
        "{{ doc['image'].save('x') }}",
        "{{ nested.deep[0].save('x') }}",
        "{% for k, v in doc.items() %}{{ v.save('x') if k == 'image' }}{% endfor %}",
        "{{ [image] | map(attribute='save') | list }}",
        "{{ image | string }}",
        "{% if image %}x{% endif %}",
    ],
)
def test_what_is_no_plain_value_cannot_be_used(template):
    row = {"text": "x", "image": Picture(), "nested": {"deep": [Picture()]}}
    with pytest.raises(DataError, match=r"uses '(image|nested\.deep)', which holds Picture"):
        render(template, row, field="doc_to_text")
    assert not Picture.saved
    assert render("{{ text }}", row, field="doc_to_text") == "x"


BIG = "a" * 1_000_000
DOUBLED = "{% set ns = namespace(x=1) %}{% for i in range(60) %}BODY{% endfor %}{{ ns.x | tojson }}"
BOMBS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "{% for x in range(9999) recursive %}{{ loop(range(9999)) if loop.depth < 9 }}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{{ big * 10 ** 10 }}",
    "{{ [big] * 10 ** 10 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 1 | round(10 ** 9, 'ceil') }}",
    "{{ big.center(10 ** 9) }}",
    "{{ big | center(10 ** 9) }}",
    "{% filter center(10 ** 9) %}x{% endfilter %}",
    "{{ ['x'] | map('center', 10 ** 9) | list }}",
    "{{ big.ljust(10 ** 9) }}",
    "{{ '%9999999999d' | format(1) }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10 ** 9) }}",
    "{% set f = '{:>9999999999}'.format %}{{ f(1) }}",
    "{{ (1).to_bytes(10 ** 10, 'big') }}",
    "{{ big.translate({97: big}) }}",
    "{{ big.replace('', big) }}",
    "{{ big.join(big) }}",
    "{{ big | join(big) }}",
    "{{ ('a\n' * 9999) | indent(10 ** 8) }}",
    "{{ big | tojson(indent=10 ** 9) }}",
    "{{ big | batch(10 ** 10, 'x') | list }}",
    "{{ ('<!---->' * 200000) | striptags }}",
    "{{ big.rfind('b' + big) }}",
    "{{ (([[1] * 1000]) * 1000) | sum(start=[]) | length }}",
    "{% for i in range(99999) %}{% if big == big ~ 'b' %}{% endif %}{% endfor %}",
    "{% for i in range(99999) %}{% if 'b' in big %}{% endif %}{% endfor %}",
    "{% for i in range(99999) %}{% set y = big[1:] %}{% endfor %}",
    "{% for i in range(99999) %}{{ big }}{% endfor %}",
    DOUBLED.replace("BODY", "{% set ns.x = ns.x ~ ns.x %}"),
    DOUBLED.replace("BODY", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
    DOUBLED.replace("BODY", "{% set ns.x = [ns.x, ns.x] %}"),
    DOUBLED.replace("BODY", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}"),
    DOUBLED.replace("BODY", "{% set ns.x = dict(a=ns.x, b=ns.x) %}"),
]


@pytest.mark.parametrize("template", BOMBS)
def test_a_template_that_would_not_end_is_an_error_of_the_row(template):
    """Each of these takes minutes or all memory where nothing is counted."""
    refused = r"takes more work than|grows too large|is none that templates may use"
    with pytest.raises(DataError, match=refused) as caught:
        render(template, {"big": BIG}, field="doc_to_text")
    assert len(str(caught.value)) < 500
    with pytest.raises(Exception, match=refused):
        render_chat(
            template.replace("big", "messages[0].content"),
            [{"role": "user", "content": BIG}],
            add_generation_prompt=True,
            special_tokens={},
        )


def test_what_a_rendering_took_is_not_taken_from_the_next():
    third = BUDGET // 3
    for _ in range(5):
        assert printed(f"{{{{ (text * {third}) | length }}}}") == str(third)


def test_threads_have_budgets_of_their_own():
    half, found = "{% for i in range(20000) %}{{ i }}{% endfor %}", []
    threads = [threading.Thread(target=lambda: found.append(printed(half))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["".join(map(str, range(20000)))] * 8


def test_a_long_text_is_a_text():
    row = {"text": "word " * 900_000, "parts": ["p"] * 10_000}
    template = "{{ text.strip() | replace('  ', ' ') }}{% for p in parts %}{{ p }}{% endfor %}"
    assert len(render(template, row, field="doc_to_text")) == 4_510_000 - 1
