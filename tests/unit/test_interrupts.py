"""What a stopped verb says: one command, which works when it is copied."""

import shlex
import signal
import sys

import pytest

from adjudge.cli.interrupts import what_next
from adjudge.errors import Terminated
from adjudge.training import stopping
from adjudge.training.stopping import StopRequest


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "/bin/adjudge" if name == "adjudge" else None)


def words_after(verb, *given, folder=None, program="adjudge"):
    """Return what is said, and the words of the command in it."""
    said = what_next(verb, [program, *given], folder)
    return said, shlex.split(said.rpartition("\n")[2])


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    return folder


def test_training_goes_on_with_resume_and_without_force(trained):
    said, words = words_after("train", "train", "sft", "--force", "--out", str(trained), "lora.r=8", folder=trained)
    assert said.startswith(f"; {trained} is incomplete. To continue:\n")
    assert words == ["adjudge", "train", "sft", "--out", str(trained), "lora.r=8", "--resume"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["train", "sft", "--resume"], ["train", "sft", "--resume"]),
        (["train", "sft", "--", "lora.r=8"], ["train", "sft", "--resume", "--", "lora.r=8"]),
        (["train", "sft", "--label", 'it\'s a "label"'], ["train", "sft", "--label", 'it\'s a "label"', "--resume"]),
    ],
)
def test_resume_is_given_once_and_where_it_is_read(given, expected, trained):
    assert words_after("train", *given, folder=trained)[1] == ["adjudge", *expected]


def test_training_that_did_no_step_begins_again(tmp_path):
    said, words = words_after("train", "train", "sft", "--data", "my file.csv", folder=tmp_path)
    assert said.startswith(" before the first step. To begin again:\n")
    assert words == ["adjudge", "train", "sft", "--data", "my file.csv"]


def test_a_run_that_is_still_to_be_replaced_needs_force_again(trained):
    said, words = words_after("train", "train", "sft", "--out", str(trained), "--force")
    assert said.startswith(". To begin again:\n")
    assert words[-1] == "--force"


@pytest.mark.parametrize("verb", ["compare", "predict", "rerun", "submit", "tune"])
def test_verbs_that_keep_what_is_done_go_on_with_the_same_command(verb, trained):
    said, words = words_after(verb, verb, "--out", str(trained), folder=trained)
    assert said.startswith(f"; {trained} is incomplete. To continue:\n")
    assert words == ["adjudge", verb, "--out", str(trained)]
    assert words_after(verb, verb)[0].startswith(". To continue:")


@pytest.mark.parametrize("verb", ["evaluate", "fetch"])
def test_other_long_verbs_begin_again(verb, trained):
    said, words = words_after(verb, verb, "--run", str(trained), folder=trained)
    assert said.startswith(". To begin again:\n")
    assert words == ["adjudge", verb, "--run", str(trained)]


@pytest.mark.parametrize("verb", ["methods", "settings", "report", None])
def test_short_verbs_say_nothing_more(verb):
    assert what_next(verb, ["adjudge", str(verb)], None) == ""


def test_a_program_that_is_not_on_the_path_is_named_as_it_was_started(tmp_path):
    script = tmp_path / "my env" / "adjudge"
    script.parent.mkdir()
    script.touch()
    assert words_after("predict", "predict", program=str(script), folder=None)[1] == [str(script), "predict"]
    module = tmp_path / "adjudge" / "__main__.py"
    words = words_after("predict", "predict", program=str(module), folder=None)[1]
    assert words == [sys.executable, "-m", "adjudge", "predict"]


def test_a_signal_that_comes_while_processes_agree_is_not_lost(monkeypatch):
    request = StopRequest()

    def any_of(flag):
        request._receive(signal.SIGTERM, None)  # after this process has told the others that it has none
        return flag

    monkeypatch.setattr(stopping, "any_of", any_of)
    request.agree()
    assert not request.requested, "the others do not know of it yet"
    monkeypatch.setattr(stopping, "any_of", lambda flag: flag)
    request.agree()
    with pytest.raises(Terminated):
        request.raise_if_requested()
