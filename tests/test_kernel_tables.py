"""The kernel study's arithmetic, on measurements made up so that the answers are known."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernel.__main__ import ARCHIVE, MEASURED, NEW, OLD, read
from benchmarks.kernel.measure import drawn_rows, likeliest
from benchmarks.kernel.tables import MAIN, Found, curve_area, results, verdict
from benchmarks.replication.targets import TaskScores, read_measurements
from benchmarks.replication.worth import Row

KERNEL = {
    "accuracy": 0.7,
    "interval": [0.6, 0.8],
    "macro_f1": 0.65,
    "answers": ["a", "b"],
    "sensitivity": [[0.001, 0.6], [0.01, 0.7], [0.1, 0.7], [1.0, 0.5]],
    "curve": [{"n": n, "accuracy": a} for n, a in ((4, 0.4), (8, 0.55), (16, 0.5), (31, 0.7))],
}


def line(task, draw="random", accuracy=0.7):
    return {
        "task": task,
        "draw": draw,
        "kernel": {**KERNEL, "accuracy": accuracy},
        "probe": 0.5,
        "first_16": 0.6,
        "cosine": 0.5,
        "cut": {},
        "moved": {
            share: {"auroc": 0.9, "found": 0.5, "accuracy": 0.6} for share in ("0.1", "0.2", "0.3")
        },
        "seconds": {"kernel": 20.0, "cos_low": 10.0},
    }


def test_a_cut_keeps_the_label_and_the_likeliest():
    likelihoods = np.tile([-1.0, -4.0, -3.0, -2.0], (3, 1))
    assert likeliest(likelihoods, [0, 1, 2], 2).tolist() == [[0, 3], [0, 1], [0, 2]]
    assert likeliest(likelihoods, [0, 1, 2], 1).tolist() == [[0], [1], [2]]


def test_an_accuracy_counts_from_the_zero_shot_score():
    task = Found(TaskScores("t", {(0, 0): 0.4}), 0.5, {"random": line("t")})
    assert task.gained(0.7) == pytest.approx(0.5)
    assert task.gained(0.3) == 0.0
    assert task.gained(None) is None
    # 0, 0, .25 (a fall counts as level), .25, .5 at log2 n = 0, 2, 3, 4, log2 31; level to 9.
    last = np.log2(31)
    area = 0.125 + 0.25 + (last - 4) * 0.375 + (9 - last) * 0.5
    assert curve_area(task) == pytest.approx(area / 9)
    assert curve_area(task, "low") is None


def test_the_verdict_takes_all_four_conditions():
    def row(low, mae=0.1, mean=0.2, name=MAIN):
        return {name: Row(name, 18, 0.5, (low, 0.9), 0.5, None, mae, mean)}

    cos_low = row(-0.4, 0.15, name="CoS-Low")
    assert verdict(row(0.1) | cos_low, row(0.1)) == "holds"
    assert verdict(row(0.1) | cos_low, row(-0.1)) == "holds in part, on tasks already looked at"
    assert verdict(row(-0.1) | cos_low, row(0.1)) == "does not hold"
    assert verdict(row(0.1, 0.21) | cos_low, row(0.1)) == "does not hold"
    assert verdict(row(0.1, 0.16) | cos_low, row(0.1)) == "does not hold"


@pytest.mark.slow
def test_no_verdict_while_a_random_draw_is_missing():
    tasks = read_measurements(ARCHIVE.parent)
    names = (*NEW, *OLD)
    made_up = {
        (name, "random"): line(name, accuracy=0.3 + 0.03 * k) for k, name in enumerate(names)
    }
    text = results(made_up, tasks, NEW, OLD)
    assert "as a predictor of data efficiency" in text.replace("\n", " ")
    assert "low: all" in text
    del made_up[OLD[0], "random"]
    text = results(made_up, tasks, NEW, OLD)
    assert "**Interim**" in text
    assert f"random: {OLD[0]}" in text


def test_the_rows_are_those_that_cos_low_was_measured_with():
    task, low = drawn_rows(ARCHIVE, "name_gender", "low")
    more = drawn_rows(ARCHIVE, "name_gender", "more")[1]
    drawn = drawn_rows(ARCHIVE, "name_gender", "random")[1]
    assert len(low) == len(more) == len(drawn) == 32
    assert not {e.id for e in more} & {e.id for e in drawn}
    assert {e.target for e in (*low, *more)} == set(task.spec.doc_to_choice)


@pytest.mark.slow
def test_the_page_is_what_the_committed_measurements_give():
    page = Path("docs/kernel.md").read_text(encoding="utf-8")
    text = results(read(MEASURED), read_measurements(ARCHIVE.parent), NEW, OLD)
    assert f"<!-- results -->\n{text}<!-- end of results -->" in page
    for found in read(MEASURED).values():
        assert set(found["rows"]) == {
            row.id for row in drawn_rows(ARCHIVE, found["task"], found["draw"])[1]
        }
