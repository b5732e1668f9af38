"""Atomic files and folders, what a killed process leaves of them, and errors of the disk."""

import errno
import os
import stat
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from adjudge.system.files import os_error_number, sweep, temporary_folder, whole_folder, write_bytes


def test_an_error_while_writing_leaves_the_old_file_only(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "file", 7)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("Error while deserializing header: header too small", None),
        ("os error unknown", None),
    ],
)
def test_the_error_number_in_a_safetensors_message(message, number):
    assert os_error_number(SafetensorError(message)) == number


@pytest.mark.parametrize("context", [temporary_folder, whole_folder])
def test_a_disk_error_inside_safetensors_is_an_os_error(context, tmp_path):
    """The message of the safetensors that is installed, for a file that may not grow."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="File too large") as raised, context(tmp_path / "model") as folder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            save_file({"weight": torch.zeros(10_000)}, folder / "model.safetensors")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_other_safetensors_errors_come_out_unchanged(tmp_path):
    with pytest.raises(SafetensorError, match="header too small"), whole_folder(tmp_path / "model"):
        raise SafetensorError("Error while deserializing header: header too small")
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_replaces_the_earlier_one(tmp_path):
    for text in ("first", "second"):
        with whole_folder(tmp_path / "model") as folder:
            (folder / text).write_text(text)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["second"]


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX systems")
@pytest.mark.parametrize(("mask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o027, 0o750, 0o640)])
def test_a_whole_folder_has_the_modes_of_the_users_umask(mask, folder_mode, file_mode, tmp_path):
    before = os.umask(mask)
    try:
        with whole_folder(tmp_path / "model") as folder:
            save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
            (folder / "model.safetensors").chmod(0o600)  # as the library makes it, whatever the umask is
            (folder / "part").mkdir(mode=0o700)
            write_bytes(folder / "part" / "file", b"x")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [*tmp_path.rglob("*")]}
    folders = {"model": folder_mode, "part": folder_mode}
    assert modes == {**folders, "model.safetensors": file_mode, "file": file_mode}


def make_folder(path: Path, age_s: float = 0.0) -> Path:
    path.mkdir()
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_sweep_removes_leftovers_of_the_names_only(tmp_path):
    make_folder(tmp_path / ".model.abc")
    (tmp_path / ".model.def").write_text("half")
    make_folder(tmp_path / ".other.abc")
    make_folder(tmp_path / "model")
    sweep(tmp_path, ("model",))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.abc", "model"]


def test_sweep_keeps_leftovers_that_are_younger(tmp_path):
    make_folder(tmp_path / ".model.old", age_s=100)
    make_folder(tmp_path / ".model.new")
    sweep(tmp_path, ("model",), older_than_s=50)
    assert [path.name for path in tmp_path.iterdir()] == [".model.new"]


def test_sweep_puts_a_displaced_folder_back_unless_its_name_is_taken(tmp_path):
    (make_folder(tmp_path / ".model.abc.before") / "file").write_text("earlier")
    sweep(tmp_path, ("*",))
    assert (tmp_path / "model/file").read_text() == "earlier"
    make_folder(tmp_path / ".model.def.before")
    sweep(tmp_path, ("*",))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/file").read_text() == "earlier"
