"""Files with a given content."""

from pathlib import Path

import pytest

from tests.tasks import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file, and give its path."""

    def make(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make
