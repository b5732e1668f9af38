"""Hooks: nested rows, text spans and pairs, in the official JSONL layout and the hub's."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from adjudge.errors import DataError, TaskError
from adjudge.tasks import load_split, load_task
from adjudge.tasks.reading.hooks import hook_named
from adjudge.types import Example

FOLDERS = {"multirc": "MultiRC", "record": "ReCoRD", "wic": "WiC", "wsc": "WSC", "copa": "COPA", "axg": "AX-g"}
TOWN = {
    "idx": 3,
    "version": 1.1,
    "passage": {
        "text": "Ann left. \nBob stayed.",
        "questions": [
            {
                "question": "Who left?",
                "idx": 8,
                "answers": [{"text": "Ann", "idx": 20, "label": 1}, {"text": "", "idx": 21, "label": 0}],
            },
            {"question": "Who stayed?", "idx": 9, "answers": [{"text": "Bob", "idx": 22, "label": 1}]},
        ],
    },
}
NEWS = {
    "source": "n",
    "idx": 5,
    "passage": {
        "text": "Bob met Ann.\n@highlight\nAnn Ray, Bob's aunt",
        "entities": [
            {"start": 0, "end": 2},
            {"start": 8, "end": 10},
            {"start": 24, "end": 30},
            {"start": 33, "end": 35},
        ],
    },
    "qas": [
        {
            "query": "The aunt is @placeholder.",
            "idx": 11,
            "answers": [{"start": 8, "end": 10, "text": "Ann"}, {"start": 24, "end": 30, "text": "Ann Ray"}],
        }
    ],
}


def load(folder: Path, task: str, *objects: object, split: str = "dev") -> list[Example]:
    """Write objects as a task's official file and load them."""
    file = {"dev": "AX-g.jsonl" if task == "axg" else "val.jsonl", "test": "test.jsonl", "train": "train.jsonl"}[split]
    path = folder / FOLDERS[task] / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(item)}\n" for item in objects), encoding="utf-8")
    return load_split(load_task(f"superglue/{task}"), split, folder)


def load_hub(folder: Path, task: str, columns: dict[str, list], split: str = "validation") -> list[Example]:
    """Write columns as a task's hub file and load them."""
    path = folder / "super_glue" / task / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return load_split(load_task(f"superglue/{task}"), "test" if split == "test" and task != "axg" else "dev", folder)


def changed(item: object, *path: str | int, to: object = None) -> object:
    """Return a copy of `item` with the value at `path` replaced or removed."""
    copy = json.loads(json.dumps(item))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return copy


def without_answers(item: dict) -> dict:
    return changed(item, "qas", 0, "answers")


def test_multirc_has_one_row_per_answer_option(tmp_path):
    first, empty, other = load(tmp_path, "multirc", TOWN)
    assert first == Example(
        "val.jsonl:1:8:20",
        {"passage": "Ann left. \nBob stayed.", "question": "Who left?", "answer": "Ann"},
        "True",
        "3/8",
        {"idx": "20", "passage_idx": "3", "question_idx": "8"},
    )
    assert (empty.fields["answer"], empty.gold, empty.group) == ("", "False", "3/8")
    assert (other.fields["question"], other.group, other.tags["idx"]) == ("Who stayed?", "3/9", "22")


def test_multirc_from_the_hub_gives_the_same_rows(tmp_path):
    rows = {
        "paragraph": ["Ann left. \nBob stayed."] * 3,
        "question": ["Who left?", "Who left?", "Who stayed?"],
        "answer": ["Ann", "", "Bob"],
        "idx": [{"paragraph": 3, "question": q, "answer": a} for q, a in ((8, 20), (8, 21), (9, 22))],
        "label": [1, 0, 1],
    }
    ours = load_hub(tmp_path / "hub", "multirc", rows)
    official = load(tmp_path, "multirc", TOWN)
    assert [(e.fields, e.gold, e.group, e.tags) for e in ours] == [
        (e.fields, e.gold, e.group, e.tags) for e in official
    ]
    assert [e.id for e in ours] == [f"validation-00000-of-00001.parquet:{number}" for number in (1, 2, 3)]


def test_multirc_test_options_have_no_gold(tmp_path):
    bare = changed(
        changed(TOWN, "passage", "questions", 0, "answers", 0, "label"),
        "passage",
        "questions",
        0,
        "answers",
        1,
        "label",
    )
    bare = changed(bare, "passage", "questions", 1, "answers", 0, "label")
    assert [e.gold for e in load(tmp_path, "multirc", bare, split="test")] == [None] * 3


def test_record_has_one_row_per_candidate(tmp_path):
    rows = load(tmp_path, "record", NEWS)
    assert [(e.tags["candidate"], e.gold) for e in rows] == [("Ann", "Yes"), ("Ann Ray", "Yes"), ("Bob", "No")]
    assert rows[1] == Example(
        "val.jsonl:1:11:2",
        {"passage": NEWS["passage"]["text"], "statement": "The aunt is [Ann Ray]."},
        "Yes",
        "5/11",
        {"idx": "11", "candidate": "Ann Ray", "answers": '["Ann", "Ann Ray"]'},
    )


def test_record_from_the_hub_gives_the_same_rows(tmp_path):
    rows = {
        "passage": [NEWS["passage"]["text"]],
        "query": ["The aunt is @placeholder."],
        "entities": [["Ann", "Ann Ray", "Bob"]],
        "entity_spans": [{"text": ["Bob"], "start": [0], "end": [3]}],
        "answers": [["Ann", "Ann Ray"]],
        "idx": [{"passage": 5, "query": 11}],
    }
    ours, official = load_hub(tmp_path / "hub", "record", rows), load(tmp_path, "record", NEWS)
    assert [(e.fields, e.gold, e.group, e.tags) for e in ours] == [
        (e.fields, e.gold, e.group, e.tags) for e in official
    ]
    assert len({e.id for e in ours}) == 3


def test_record_answers_may_be_missing_only_in_the_test_split(tmp_path):
    rows = load(tmp_path, "record", without_answers(NEWS), split="test")
    assert [(e.gold, e.tags["answers"]) for e in rows] == [(None, "")] * 3
    with pytest.raises(DataError, match=r"val\.jsonl:1: qas\[0\]: there is no answer in field 'answers'.*query of dev"):
        load(tmp_path, "record", without_answers(NEWS))
    hub = {
        "passage": ["Bob."],
        "query": ["@placeholder!"],
        "entities": [["Bob"]],
        "answers": [[]],
        "idx": [{"passage": 0, "query": 0}],
    }
    hub["answers"] = pyarrow.array(hub["answers"], pyarrow.list_(pyarrow.string()))
    assert [e.gold for e in load_hub(tmp_path / "hub", "record", hub, "test")] == [None]


def test_record_fills_every_placeholder(tmp_path):
    twice = changed(NEWS, "qas", 0, "query", to="@placeholder and @placeholder")
    assert load(tmp_path, "record", twice)[2].fields["statement"] == "[Bob] and [Bob]"


WORD = {
    "word": "run",
    "sentence1": "He ran a run.",
    "sentence2": "Runs end.",
    "start1": 9,
    "end1": 12,
    "start2": 0,
    "end2": 4,
}


def test_wic_marks_the_word_at_its_position(tmp_path):
    (example,) = load(tmp_path, "wic", {**WORD, "idx": 4, "label": True, "version": 1.1})
    assert example == Example(
        "val.jsonl:1",
        {"word": "run", "sentence1": "He ran a [run].", "sentence2": "[Runs] end."},
        "Same",
        "",
        {"idx": "4"},
    )
    columns = {name: [value] for name, value in {**WORD, "idx": 4, "label": 0}.items()}
    (other,) = load_hub(tmp_path / "hub", "wic", columns)
    assert (other.fields, other.gold) == (example.fields, "Different")


def span(text: str, phrase: str, at: int, pronoun: str, pronoun_at: int) -> dict:
    target = {"span1_text": phrase, "span1_index": at, "span2_text": pronoun, "span2_index": pronoun_at}
    return {"text": text, "target": target, "idx": 0, "label": False}


SPANS = [
    ("Al met Bo. He left.", "Al", 0, "He", 3, "[Al] met Bo. [He] left."),
    ("He said he saw him. ", "He", 2, "him", 4, "He said [he] saw [him]. "),
    ("It was the table, not it.", "The table", 2, "it", 5, "It was [the table], not [it]."),
    ('Emma\'s aunt said "Good for him," here', "Emma", 0, "him", 5, '[Emma]\'s aunt said "Good for [him]," here'),
    ("their mothers fear", "their mothers", 0, "their", 0, "[[their] mothers] fear"),
    ("Off by one, use it now", "one", 2, "it,", 4, "Off by [one], use [it] now"),
    ("a pass phrase of two words is it", "pass\nphrase", 1, "it", 7, "a [pass phrase] of two words is [it]"),
    (
        "Lev Kam, S.'s man, and Gri Zin, who met him",
        "Kam and Zin",
        0,
        "him",
        8,
        "Lev [Kam, S.'s man, and Gri Zin], who met [him]",
    ),
    ("I saw the lamp. It shone.", "The lamp.", 2, "It", 4, "I saw [the lamp]. [It] shone."),
]


@pytest.mark.parametrize(("text", "phrase", "at", "pronoun", "pronoun_at", "marked"), SPANS)
def test_wsc_marks_both_spans_by_word_index(tmp_path, text, phrase, at, pronoun, pronoun_at, marked):
    row = span(text, phrase, at, pronoun, pronoun_at)
    (example,) = load(tmp_path, "wsc", row)
    assert example.fields == {"text": marked, "phrase": " ".join(phrase.split()), "pronoun": pronoun}
    flat = {"text": text, **row["target"], "idx": 0, "label": 0}
    (other,) = load_hub(tmp_path / "hub", "wsc", {name: [value] for name, value in flat.items()})
    assert (other.fields, other.gold) == (example.fields, "No")


def test_wsc_warns_about_a_span_found_elsewhere(tmp_path, capsys):
    load(tmp_path, "wsc", span("Al met Bo. He left.", "Al", 0, "He", 2), span("Al saw her.", "Al", 0, "her", 2))
    warning = " ".join(capsys.readouterr().err.split())
    assert (
        "1 of 4 spans are not at their index" in warning
        and "val.jsonl:1 ('He')" in warning
        and "val.jsonl:2" not in warning
    )


PAIR = [
    {
        "premise": f"The clerk lost {word} pen.",
        "hypothesis": "The clerk had a pen.",
        "label": "entailment",
        "idx": at,
        "pair_id": 7 + at,
    }
    for at, word in enumerate(("his", "her"))
]


def test_axg_pairs_are_groups(tmp_path):
    second = [{**row, "hypothesis": "No pen.", "label": "not_entailment"} for row in PAIR]
    rows = load(tmp_path, "axg", *PAIR, *second)
    assert [e.group for e in rows] == ["AX-g.jsonl:1"] * 2 + ["AX-g.jsonl:3"] * 2
    assert [(e.gold, e.tags) for e in rows[:2]] == [("Yes", {"idx": str(at), "pair_id": str(7 + at)}) for at in (0, 1)]
    hub = {name: [row[name] for row in PAIR] for name in ("premise", "hypothesis", "idx")} | {"label": [0, 0]}
    ours = load_hub(tmp_path / "hub", "axg", hub, "test")
    assert [(e.fields, e.gold) for e in ours] == [(e.fields, e.gold) for e in rows[:2]]
    assert ours[0].group == ours[1].group != ""


def test_axg_training_rows_have_no_pairs(tmp_path):
    folder = tmp_path / "superglue" / "RTE"
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"premise": "p", "hypothesis": "h", "label": "entailment", "idx": number}) for number in range(3)
    ]
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("axg", "axb"):
        rows = load_split(load_task(f"superglue/{name}"), "train", tmp_path)
        assert [(dict(e.fields), e.gold, e.group) for e in rows] == [
            ({"premise": "p", "hypothesis": "h"}, "Yes", "")
        ] * 3


OPTION = {
    "premise": "It rained.",
    "choice1": "It is wet.",
    "choice2": "It is dry.",
    "question": "effect",
    "label": 1,
    "idx": 2,
}


def test_copa_options_keep_their_order(tmp_path):
    assert load(tmp_path, "copa", OPTION)[0].gold == "Option two"
    assert load_hub(tmp_path / "hub", "copa", {name: [value] for name, value in OPTION.items()})[0].gold == "Option two"


MISTAKES = [
    ("multirc", changed(TOWN, "passage"), r"val\.jsonl:1: there is no field 'passage'"),
    ("multirc", changed(TOWN, "passage", to="text"), r":1: field 'passage' is text, not an object"),
    ("multirc", changed(TOWN, "passage", "questions"), r":1: passage: there is no field 'questions'"),
    (
        "multirc",
        changed(TOWN, "passage", "questions", 1, to=7),
        r"passage: field 'questions\[1\]' is a whole number, not an object",
    ),
    (
        "multirc",
        changed(TOWN, "passage", "questions", 1, "idx", to=True),
        r"questions\[1\]: field 'idx' is true or false, not a whole",
    ),
    (
        "multirc",
        changed(TOWN, "passage", "questions", 0, "answers", 1, "label"),
        r":1: passage: questions\[0\]: answers\[1\]: there is no field 'label'",
    ),
    (
        "multirc",
        changed(TOWN, "passage", "questions", 0, "answers", 1, "label", to=2),
        r"answers\[1\]: '2' in column 'label' is not a label",
    ),
    (
        "multirc",
        changed(TOWN, "passage", "questions", 0, "question", to=" "),
        r"answers\[0\]: field 'question' is empty",
    ),
    ("record", changed(NEWS, "qas"), r":1: there is no field 'qas'"),
    ("record", changed(NEWS, "qas", 0, "query", to="No gap."), r"qas\[0\]: field 'query' has no @placeholder"),
    ("record", changed(NEWS, "qas", 0, "answers", 0, "text"), r"qas\[0\]: answers\[0\]: there is no field 'text'"),
    (
        "record",
        changed(NEWS, "passage", "entities", 2, "end", to=99),
        r"entities\[2\]: fields 'start' and 'end' are 24 and 99",
    ),
    ("record", changed(NEWS, "passage", "entities", to=[]), r"qas\[0\]: there is no candidate"),
    ("wic", {**WORD, "end1": 99, "label": True}, r":1: fields 'start1' and 'end1' are 9 and 99"),
    ("wic", {**WORD, "start2": "x", "label": True}, r":1: field 'start2' is text, not a whole number"),
    (
        "wsc",
        span("He met him, or him.", "He", 0, "him", 0),
        r":1: field 'span2_text' is 'him' at word 0 .*has it 2 times, but not",
    ),
    ("wsc", span("He met him.", "Al", 0, "him", 2), r":1: field 'span1_text' is 'Al' at word 0 .*has it nowhere"),
    ("wsc", span("He met him.", "...", 0, "him", 2), r":1: field 'span1_text' is '...' at word 0 .*has it nowhere"),
    ("wsc", span("He met him.", "met Al", 1, "him", 2), r"span1_text.*has it nowhere"),
    (
        "wsc",
        changed(span("He met him.", "He", 0, "him", 2), "target", "span1_index"),
        r":1: there is no field 'span1_index'",
    ),
    ("wsc", changed(span("He met him.", "He", 0, "him", 2), "target"), r":1: there is no field 'span1_text'"),
    ("copa", {**OPTION, "question": "reason"}, r":1: field 'question' is 'reason', which is neither cause nor effect"),
    ("axg", PAIR[0], r"AX-g\.jsonl:1: the last of 1 rows has no partner"),
]


@pytest.mark.parametrize(("task", "item", "message"), MISTAKES, ids=[f"{number}" for number in range(len(MISTAKES))])
def test_wrong_layouts_raise_errors_with_file_line_and_field(tmp_path, task, item, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, task, item)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "not_entailment"}, r"AX-g\.jsonl:2: field 'label' differs from that of the row before"),
        ({"hypothesis": "Other."}, r"AX-g\.jsonl:2: field 'hypothesis' differs from that"),
        ({"premise": PAIR[0]["premise"]}, r"AX-g\.jsonl:2: field 'premise' equals that of the row before"),
    ],
)
def test_axg_rows_that_do_not_form_a_pair_are_an_error(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, "axg", PAIR[0], {**PAIR[1], **change})


def test_damaged_struct_of_the_hub_is_reported(tmp_path):
    rows = {"paragraph": ["p"], "question": ["q"], "answer": ["a"], "idx": ["no struct"], "label": [1]}
    with pytest.raises(DataError, match=r"parquet: row 1: field 'idx' is text, not an object"):
        load_hub(tmp_path, "multirc", rows)


def test_an_unknown_hook_suggests_the_nearest():
    with pytest.raises(TaskError, match=r"no hook 'multi_rc'. Did you mean 'multirc'"):
        hook_named("multi_rc")
