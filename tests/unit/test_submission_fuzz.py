"""Submissions damaged at random: the damage is found, and the result is always a list of problems."""

import io
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from submissions import form_of, right_file, right_lines, zipped

from adjudge.submission.check import check_zip
from adjudge.submission.check_file import check_file
from adjudge.submission.formats import SUITES

SMALL = ("WNLI.tsv", "WSC.jsonl", "CB.jsonl", "AX-g.jsonl")
EVERY = settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
RIGHT = {name: right_lines(form_of(name)) for name in SMALL}
SMALL_ZIP = zipped({name: right_file(form_of(name)) for name in SMALL[1:]})


def problems(name, lines):
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    return check_file(form_of(name), io.BytesIO(content), name)


@EVERY
@given(st.sampled_from(SMALL), st.data())
def test_a_lost_repeated_or_moved_row_is_found(name, data):
    lines = list(RIGHT[name])
    first = 1 if name.endswith(".tsv") else 0
    at = data.draw(st.integers(first, len(lines) - 1))
    to = data.draw(st.integers(first, len(lines) - 1).filter(lambda position: position != at))
    how = data.draw(st.sampled_from(["lost", "doubled", "moved"]))
    line = lines[at]
    if how != "doubled":
        del lines[at]
    if how != "lost":
        lines.insert(to, line)
    assert problems(name, lines)


@EVERY
@given(st.sampled_from(SMALL), st.data(), st.text(max_size=8))
def test_an_unknown_label_is_found(name, data, label):
    form, lines = form_of(name), list(RIGHT[name])
    at = data.draw(st.integers(1, len(lines) - 1))
    index = at - 1 if name.endswith(".tsv") else at
    lines[at] = json.dumps({"idx": index, "label": label}) if form.is_json else f"{index}\t{label}"
    reported = problems(name, lines)
    assert bool(reported) == (label not in form.labels)
    assert all(str(problem).isprintable() for problem in reported)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["idx", "label", "passage", "questions", "answers"]), inner)
    ),
    max_leaves=12,
)


@EVERY
@given(st.sampled_from([form.file for form in SUITES["superglue"]]), st.lists(JSON, max_size=4))
def test_any_json_gives_problems(name, values):
    assert problems(name, [json.dumps(value) for value in values])


@EVERY
@given(st.sampled_from([form.file for forms in SUITES.values() for form in forms]), st.binary(max_size=200))
def test_any_bytes_give_problems(name, content):
    assert check_file(form_of(name), io.BytesIO(content), name)


@EVERY
@given(st.sampled_from(SMALL), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_through(name, damage):
    content = bytearray(right_file(form_of(name)))
    for position, byte in damage:
        content[position % len(content)] = byte
    for problem in check_file(form_of(name), io.BytesIO(bytes(content)), name):
        assert str(problem).startswith(name)


@settings(EVERY, max_examples=600)
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6), st.integers(0, len(SMALL_ZIP)))
def test_a_damaged_zip_is_read_through(damage, cut):
    content = bytearray(SMALL_ZIP)
    for position, byte in damage:
        content[-1 - position % len(content)] = byte
    if cut % 3 == 0:
        del content[cut:]
    assert check_zip(io.BytesIO(bytes(content)), "a.zip")  # files are missing in any case


@EVERY
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.binary(max_size=50))
def test_any_name_in_a_zip_gives_problems(name, content):
    reported = check_zip(io.BytesIO(zipped({name: content})), "a.zip")
    assert reported
    assert all(str(problem).isprintable() for problem in reported)
