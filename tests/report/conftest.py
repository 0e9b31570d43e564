"""Studies that the tests of the report share."""

import pytest

from tests.studies import write_study

SCRIPT, IMAGE = "<script>alert(1)</script>", "<img src=x onerror=alert(2)> </script><b>"
TASKS = ("glue/rte", "glue/mrpc")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run with everything in it, two texts of which are hostile."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return write_study(folder, 30, names={3: SCRIPT}, reasons={5: IMAGE}, tasks=TASKS, seeds=3)


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory):
    """A run without confirmation, stages and measures."""
    folder = tmp_path_factory.mktemp("runs") / "unfinished"
    return write_study(folder, 5, finished=False, measures=False, staged=False)


@pytest.fixture(scope="session")
def multi(tmp_path_factory):
    """A search for score and parameters."""
    folder = tmp_path_factory.mktemp("runs") / "multi"
    return write_study(folder, 12, objectives=("params", "score"), seeds=2, staged=False)
