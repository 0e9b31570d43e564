"""Reading studies that another program wrote: one line, whatever is in them."""

import shutil
import sqlite3

import pytest

from peftsearch.errors import StudyError
from peftsearch.study.record import read_record
from tests.runs import refused
from tests.studies import write_study


def set_to(value, key, of="trial"):
    return f"update {of}_user_attributes set value_json='{value}' where key='{key}'"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "r"
    write_study(folder, 4)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        set_to("{bad", "stages", "study"),
        set_to('"abc"', "score"),
        set_to("1e308", "score"),
        set_to('"<b>x"', "n_params"),
        set_to('"x"', "kind"),
        "update trials set state='XX'",
        "update trials set number=0",
        """update trial_params set distribution_json='{"name": "X", "attributes": {}}'""",
    ],
)
def test_a_study_with_odd_facts_is_one_line(study, tmp_path, capsys, change):
    folder = tmp_path / "r"
    shutil.copytree(study, folder)
    read_record(folder)
    with sqlite3.connect(folder / "study.db") as database:
        assert database.execute(change).rowcount > 0
    with pytest.raises(StudyError, match=r"the study is damaged, or was written by another program"):
        read_record(folder)
    assert "restore it from a copy" in refused(capsys, "report", folder)
