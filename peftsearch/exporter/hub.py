"""Upload a folder to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from peftsearch.errors import ConfigError, one_line

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
LEFT_OUT = ["progress/*", "tracking/*", ".*"]
"""Files that are of use on the machine alone."""


def check_repository(name: str | None) -> None:
    """Check the form of a repository's name.

    Raises:
        ConfigError: It is not ORG/NAME.
    """
    if name is not None and not _REPOSITORY.fullmatch(name):
        raise ConfigError(f"--push-to-hub {one_line(name, 60)!r}: give a repository as ORG/NAME")


def push(folder: Path, repository: str) -> str:
    """Upload a folder to a private or existing repository of models.

    Args:
        folder: The folder.
        repository: ORG/NAME; made, and private, if it does not exist.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: The hub cannot be reached, or refuses; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, repo_type="model", private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type="model",
            commit_message="Upload a model trained by peftsearch",
            ignore_patterns=LEFT_OUT,
        )
    except Exception as error:  # the client raises anything: no token, no right, no network
        raise ConfigError(
            f"--push-to-hub {repository}: {type(error).__name__}: {one_line(error, 160)}; {folder} is complete: log in "
            "with `hf auth login`, and upload it with `hf upload`"
        ) from error
    return str(done.commit_url)
