"""Run a small sample of the cases of `tests/fuzz.py`, and test the same promises as properties."""

import string
from random import Random

import pytest
from fuzz import could_be, fuzz_answers, fuzz_files, fuzz_submissions, fuzz_tasks, load_table_file
from fuzz_frames import MIXED, TYPED, fuzz_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import label_task, number_task

from adjudge.config import RewardConfig
from adjudge.errors import AdjudgeError
from adjudge.prompts.answers import answer_text, read_answer
from adjudge.rewards.score import rewards
from adjudge.tasks.answer_words import folded
from adjudge.tasks.task_yaml import read_tree
from adjudge.tasks.validate import mistakes_of, validate_task

SOME = settings(max_examples=60, derandomize=True, deadline=None, database=None)
WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=2, max_size=4)
STOPS = st.sampled_from(["line", "tag"])


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    from adjudge.system.console import console

    monkeypatch.setattr(console, "quiet", True)


def test_generated_answers_are_read_like_the_oracle():
    counts = fuzz_answers(4000, Random(0))
    assert counts.total() == 4000
    assert min(counts.values()) > 0 and len(counts) == 4


def test_generated_files_are_loaded_or_end_in_our_errors(tmp_path):
    counts = fuzz_files(120, Random(0), tmp_path)
    kinds = {outcome.rpartition(": ")[2] for outcome in counts}
    assert counts.total() == 120
    assert kinds >= {"loaded", "DataError"}


def test_generated_frames_are_read_as_their_cells_or_end_in_our_errors():
    counts = fuzz_frames(200, Random(0))
    assert counts.total() == 200
    assert set(counts) == {f"{make.__name__}: {end}" for make in (*MIXED, *TYPED) for end in ("read", "DataError")}


def test_generated_task_files_are_loaded_or_end_in_our_errors(tmp_path):
    counts = fuzz_tasks(80, Random(0), tmp_path)
    assert counts.total() == 80 and set(counts) == {"loaded", "TaskError"}


def test_generated_submissions_are_checked(tmp_path):
    assert fuzz_submissions(30, Random(0), tmp_path)["with problems"] == 30


def test_oracle_is_strict_enough():
    spec = label_task("No", "Not")
    assert could_be("no.", spec, "line") == {"No"}
    for text in ("Not sure", "(No)", "No\u200b", "", "\nNo", "Nо"):  # the last with a Cyrillic letter
        assert could_be(text, spec, "line") == set()
    assert could_be("3.", number_task(0, 5), "line") == {3.0}


@SOME
@given(WORDS, st.text(max_size=12), STOPS)
def test_any_allowed_words_are_read_as_taught(words, noise, stop):
    spec = label_task(*words)
    tree = {**spec.model_dump(mode="json", exclude_defaults=True), "source": {"table": {"train": "a.csv"}}}
    if any("labels" in mistake for mistake in mistakes_of(tree)):
        return
    judgements = [read_answer(answer_text(word, spec) + "</Judgement>" + noise, spec, stop) for word in words]
    assert [judgement.value for judgement in judgements] == words
    guessed = read_answer(noise, spec, stop)
    assert guessed.value is None or folded(guessed.value) in folded(noise.partition("</Judgement>")[0] + " ")
    scores = rewards([*judgements, guessed], [words[0]] * (len(words) + 1), spec, RewardConfig())
    assert len(scores) == len(words) + 1


@SOME
@given(st.text(max_size=300) | st.text(alphabet="{}[]&*!|>#%@`'\"\\:,-?~ \n" + string.ascii_letters, max_size=300))
def test_any_text_is_a_task_or_a_task_error(text):
    try:
        assert isinstance(mistakes_of(read_tree(text, "task.yaml")), list)
    except AdjudgeError as error:
        assert str(error).startswith("task.yaml")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz"])
def test_any_bytes_are_a_table_or_a_data_error(tmp_path_factory, suffix):
    folder = tmp_path_factory.mktemp("bytes")

    @settings(SOME, max_examples=60)
    @given(st.binary(max_size=80).map(lambda tail: b"text,label\na,x\nb,y\n" + tail) | st.binary(max_size=200))
    def read(content):
        path = folder / f"table{suffix}"
        path.write_bytes(content)
        try:
            load_table_file(path, Random(0))
        except AdjudgeError as error:
            assert "table" in str(error) or "judged" in str(error)

    read()


@SOME
@given(st.binary(max_size=200))
def test_random_bytes_are_never_a_task(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("task") / "task.yaml"
    path.write_bytes(content)
    assert validate_task(path)
