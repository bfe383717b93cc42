"""The ranking's files: typed columns, cells that are no formula, a page of what is in them."""

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import pytest

from taskeff.estimate.calibration import TaskPoint, fit_calibration
from taskeff.estimate.ranking import columns, ordered, ranking_rows
from taskeff.estimate.rounding import high_end, low_end, whole
from taskeff.estimate.shapes import Beta
from taskeff.report.ranking import as_csv, as_table, render

TARGETS = (0.8, 0.9)
HOSTILE = "=cmd|'/C calc'!A0</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def calibration():
    points = [TaskPoint(f"t{i}", 0.3 + 0.05 * i, 0.05 * i) for i in range(10)]
    return fit_calibration(points, curve=Beta(7.0), cap=1000, family="f", fingerprint={})


def measured(name, cos_low, **fields):
    result = {"cos_low": cos_low, "mean_cosine": 0.1}
    result |= {"cos_low_low": cos_low - 0.05, "cos_low_high": cos_low + 0.05}
    record = {"name": name, "status": "measured", "reason": None, "price": 0.5, "rows": 100}
    return {
        **record,
        "unscored": 0,
        "duplicates": 0,
        "mean_confidence": 0.9,
        "result": result,
    } | fields


@pytest.fixture(scope="module")
def rows(calibration):
    records = [
        measured("slow", 0.05),
        measured("fast", 0.4, warnings=["3 of 100 rows repeat another"]),
        {"name": "waiting", "status": "awaiting_labels", "reason": HOSTILE},
        measured("nowhere", 1.5),
    ]
    return ordered(ranking_rows(records, calibration, targets=TARGETS, fingerprint={}))


def test_the_highest_area_comes_first_and_what_has_none_last(rows):
    assert [(r["rank"], r["name"], r["status"]) for r in rows] == [
        (1, "fast", "ranked"),
        (2, "slow", "ranked"),
        (None, "nowhere", "no_estimate"),
        (None, "waiting", "awaiting_labels"),
    ]
    fast, slow, nowhere, _ = rows
    assert fast["labels_80"] < fast["labels_90"]
    assert fast["labels_90"] < slow["labels_90"]
    assert fast["labels_90_low"] <= fast["labels_90"]
    assert fast["cost_90"] == 0.5 * whole(fast["labels_90"])
    assert "1.5" in nowhere["reason"]


def test_estimates_are_those_of_predict(rows, calibration):
    from taskeff.estimate.budget import predict

    found = predict(calibration, 0.4, target=0.9, fingerprint={})
    assert rows[0]["labels_90"] == found.labels_needed
    assert (rows[0]["labels_90_low"], rows[0]["labels_90_high"]) == found.intervals[0.8]
    assert rows[0]["auc"] == found.auc


def test_the_table_has_types_whatever_is_missing(rows):
    table = as_table(rows, TARGETS)
    assert table.column_names == columns(TARGETS)
    assert str(table.schema.field("labels_90").type) == "double"
    assert str(table.schema.field("reachable_90").type) == "bool"
    assert str(table.schema.field("warnings").type) == "list<item: string>"
    assert table["name"].to_pylist() == [row["name"] for row in rows]
    assert as_table([], TARGETS).schema == table.schema


def test_no_cell_of_the_csv_is_a_formula(rows, calibration):
    read = list(csv.DictReader(io.StringIO(as_csv(rows, calibration, TARGETS).decode("utf-8-sig"))))
    assert read[3]["reason"] == "'" + HOSTILE
    assert read[0]["labels_90"] == str(whole(rows[0]["labels_90"]))
    assert read[0]["labels_90_low"] == str(low_end(rows[0]["labels_90_low"]))
    assert read[0]["labels_90_high"] == str(high_end(rows[0]["labels_90_high"], calibration.cap))
    assert read[3]["labels_90"] == ""


def test_the_caveat_of_the_family_is_on_every_row_of_the_csv(rows, calibration):
    family = dataclasses.replace(calibration, caveat=HOSTILE)
    read = list(csv.DictReader(io.StringIO(as_csv(rows, family, TARGETS).decode("utf-8-sig"))))
    assert [row["family"] for row in read] == ["f"] * 4
    assert all(row["family_warnings"].startswith("'" + HOSTILE) for row in read)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:")]


def test_the_page_is_one_file_and_escapes_what_it_shows(rows, calibration):
    text = render(rows, calibration, TARGETS)
    page = Page(text)
    assert page.links == []
    assert page.tags.count("script") == 2
    assert "alert(1)</script>" not in text
    assert "default-src 'none'" in text
    assert page.tags.count("tr") == 1 + len(rows)
    data = re.search(r'id="curves">(.*?)</script>', text, re.S)
    curves = json.loads(data[1])
    assert set(curves["curves"]) == {"0", "1"}
    assert curves["curves"]["0"]["budgets"][-1] == calibration.cap
    assert render(rows, calibration, TARGETS) == text


def test_what_every_row_warns_of_is_said_once(calibration):
    records = [measured(n, 0.2, warnings=["of all", f"of {n}"]) for n in ("one", "two")]
    rows = ordered(ranking_rows(records, calibration, targets=TARGETS, fingerprint={}))
    text = render(rows, calibration, TARGETS)
    assert text.count(">of all<") == 1
    assert text.count(">of one<") == 1
