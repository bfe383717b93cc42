"""Exports of a real Label Studio 1.23.2 (`tests/coslow/label_studio` made them) are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from taskeff.coslow.handoff import read_labels
from taskeff.errors import DataError
from tests.coslow.label_studio import (
    ANSWERS,
    ENDINGS,
    FOLDER,
    SKIP,
    TEXTS,
    records_of,
    serving,
)

REFUSED = {
    "differ": "annotators disagree on 'train-4': (yes, no & <never>|no & <never>, yes); keep one",
    "ticks": "several labels for one row: no & <never>, yes; keep one",
    "part": "2 of 6 rows have no label yet: train-4, train-5",
}


def check(project: str, path: Path) -> None:
    records = records_of(project)
    if project in REFUSED:
        with pytest.raises(DataError, match=f"{path.name}.*: {REFUSED[project]}"):
            read_labels(path, records)
        return
    given = [next(one[0] for one in row if one != SKIP) for row in ANSWERS[project]]
    assert [one.target for one in read_labels(path, records)] == given
    assert [one.text for one in read_labels(path, records)] == list(TEXTS)


@pytest.mark.parametrize("ending", ENDINGS.values())
@pytest.mark.parametrize("project", ANSWERS)
def test_an_export_is_read(project, ending):
    check(project, FOLDER / f"{project}.{ending}")


@pytest.mark.parametrize("ending", ENDINGS.values())
def test_rows_are_found_by_their_text_where_no_id_of_ours_came_back(tmp_path, ending):
    content = (FOLDER / f"agree.{ending}").read_bytes()
    assert b"row_id" in content
    path = tmp_path / f"agree.{ending}"
    path.write_bytes(content.replace(b"row_id", b"gone"))
    check("agree", path)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("label-studio"), reason="label-studio is not on the PATH")
def test_the_server_itself(tmp_path):
    with serving() as server:
        for project in ANSWERS:
            for ending, content in server.exports(project).items():
                path = tmp_path / f"{project}.{ending}"
                path.write_bytes(content)
                check(project, path)
