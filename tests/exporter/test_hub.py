"""Uploads, at the edge of huggingface_hub: what it is called with, and what becomes of its errors."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from peftsearch.errors import ConfigError
from peftsearch.exporter.hub import LEFT_OUT, check_repository, push


class Api:
    def __init__(self):
        self.calls = []

    def create_repo(self, *args, **options):
        self.calls.append(("create", args, options))

    def upload_folder(self, **options):
        self.calls.append(("upload", options["repo_id"], options["folder_path"], options["ignore_patterns"]))
        return SimpleNamespace(commit_url="https://hub/commit")


def test_a_folder_goes_into_a_private_repository(tmp_path, monkeypatch):
    api = Api()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    assert push(tmp_path, "me/model") == "https://hub/commit"
    assert api.calls == [
        ("create", ("me/model",), {"repo_type": "model", "private": True, "exist_ok": True}),
        ("upload", "me/model", tmp_path, LEFT_OUT),
    ]


def test_an_error_of_the_hub_is_one_line_and_the_folder_stays(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise huggingface_hub.errors.LocalTokenNotFoundError("Token is required,\nbut no token found.")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(create_repo=refuse))
    with pytest.raises(ConfigError, match=r"me/model: LocalTokenNotFoundError: .*hf auth login") as caught:
        push(tmp_path, "me/model")
    assert "\n" not in str(caught.value)
    assert tmp_path.is_dir()


@pytest.mark.parametrize("name", ["model", "a/b/c", "../x", "a b/c", "/m", ""])
def test_a_wrong_name_is_refused_before_anything_is_trained(name):
    with pytest.raises(ConfigError, match="ORG/NAME"):
        check_repository(name)
