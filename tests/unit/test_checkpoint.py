"""Checkpoints are whole or absent, damage is seen, and nothing is unpickled."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from adjudge.errors import RunError
from adjudge.training.checkpoint import (
    DamagedError,
    checkpoints,
    keep_newest,
    load_checkpoint,
    newest_checkpoint,
    pack,
    save_checkpoint,
    unpack,
)

STATE = {
    "weights": {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.tensor(3.5, dtype=torch.bfloat16)},
    "optimizer": {
        "state": {0: {"step": torch.tensor(4.0)}, 1: {}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}],
    },
    "beta": 0.1 + 0.2,
    "best": None,
    "odd": [math.inf, True, "text"],
}


def save(folder: Path, step: int, state: Any = STATE) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    return save_checkpoint(folder, step, pack(state, tensors), tensors)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = save(tmp_path, 12)
    assert path.name == "step-00000012"
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    step, state = load_checkpoint(path)
    assert step == 12
    assert same(state, STATE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


@given(JSON)
def test_any_nested_value_comes_back(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    read = json.loads(json.dumps(pack(value, tensors), allow_nan=False))
    assert same(unpack(read, tensors), value)


def test_a_value_without_a_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        pack({"a": {1, 2}}, {})


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "tensors.safetensors"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_flipped_byte_anywhere_is_seen_and_the_one_before_is_taken(
    name: str, place: float, tmp_path: Path, capsys: Any
) -> None:
    save(tmp_path, 4, {"value": 4})
    file = save(tmp_path, 8) / name
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 2))] ^= 0x20  # the manifest's last byte is a line end, which means nothing
    file.write_bytes(bytes(content))
    with pytest.raises(DamagedError):
        load_checkpoint(file.parent)
    assert newest_checkpoint(tmp_path) == (4, {"value": 4})
    said = capsys.readouterr().err
    assert "step-00000008 is damaged" in said


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "tensors.safetensors"])
def test_a_file_that_is_gone_or_cut_short_is_seen(name: str, tmp_path: Path) -> None:
    file = save(tmp_path, 8) / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DamagedError):
        load_checkpoint(file.parent)
    file.unlink()
    with pytest.raises(DamagedError):
        load_checkpoint(file.parent)


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return Path.write_text, (Path(self.mark), "run")


@pytest.mark.parametrize("name", ["optimizer.pt", "tensors.safetensors", "state.json"])
def test_a_planted_pickle_is_refused_and_never_run(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "run", 8)
    (path / name).write_bytes(pickle.dumps(Planted(tmp_path / "mark")))
    if name != "optimizer.pt":  # with a manifest that agrees, as one who plants it would write
        from adjudge.system.files import sha256_of

        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][name] = {"bytes": (path / name).stat().st_size, "sha256": sha256_of(path / name)}
        (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedError):
        load_checkpoint(path)
    assert not (tmp_path / "mark").exists()
    pickle.loads((path / name).read_bytes())  # the pickle itself does what it says
    assert (tmp_path / "mark").exists()


def test_all_damaged_is_an_error_and_none_at_all_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    for step in (4, 8):
        (save(tmp_path, step) / "state.json").unlink()
    with pytest.raises(RunError, match="None of the 2 checkpoints"):
        newest_checkpoint(tmp_path)


def test_the_newest_are_kept_and_what_was_half_written_goes(tmp_path: Path) -> None:
    for step in (1, 2, 30, 4):
        save(tmp_path, step)
    (tmp_path / ".step-00000005.abc").mkdir()
    (tmp_path / ".step-00000005.abc" / "state.json").write_text("{")
    (tmp_path / "best").mkdir()
    keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-00000004", "step-00000030"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000030", "step-00000004"]


def test_a_checkpoint_of_the_same_step_is_replaced_whole(tmp_path: Path) -> None:
    save(tmp_path, 4, {"value": 1})
    save(tmp_path, 4, {"value": 2})
    assert newest_checkpoint(tmp_path) == (4, {"value": 2})


def test_a_state_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adjudge.training import checkpoint

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    save(tmp_path, 4)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_another_form_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 4)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(DamagedError, match="99"):
        load_checkpoint(path)
    shutil.rmtree(path)
    path.mkdir()
    save_file({"0": torch.zeros(1)}, path / "tensors.safetensors")
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        load_checkpoint(path)


def test_a_folder_that_was_moved_away_for_one_that_did_not_come_is_put_back(tmp_path: Path) -> None:
    from adjudge.system.files import sweep, whole_folder

    path = save(tmp_path, 4)
    path.rename(tmp_path / ".step-00000004.abcd.before")
    (tmp_path / ".step-00000004.abcd").mkdir()
    sweep(tmp_path, ("*",))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000004"]
    assert newest_checkpoint(tmp_path) is not None
    with pytest.raises(KeyboardInterrupt), whole_folder(path):
        raise KeyboardInterrupt
    assert newest_checkpoint(tmp_path) is not None


def test_checkpoints_that_were_passed_over_do_not_count_among_the_newest(tmp_path: Path) -> None:
    from adjudge.training.checkpoint import drop_newer

    for step in (4, 8, 10):
        save(tmp_path, step)
    drop_newer(tmp_path, 8)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000008", "step-00000004"]
