"""Test SuperGLUE in the official JSONL layout and the hub's, with the row counts of SOURCES.md."""

import json
import re
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants
from transformers import AutoTokenizer

from adjudge.config import PromptConfig
from adjudge.errors import DataError
from adjudge.prompts.render import Renderer
from adjudge.tasks import list_tasks, load_split, load_task
from adjudge.types import Example

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "superglue").is_dir(), reason="the official folders are not next to the checkout"
)
SUPERGLUE = [name for name in list_tasks() if name.startswith("superglue/")]
OFFICIAL = [name for name in list_tasks() if name.startswith(("glue/", "superglue/"))]


def stated_rows() -> dict[str, int]:
    """Return the rows per file from SOURCES.md: answer options for MultiRC, queries for ReCoRD."""
    stated = {}
    for line in (DATA / "SOURCES.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) < 3 or not cells[0].startswith(("glue/", "superglue/")):
            continue
        counts = re.sub(r"\([^)]*\)", "", cells[1].rsplit("=", 1)[-1].replace(",", ""))
        numbers = [int(number) for number in re.findall(r"\d+", counts)]
        folder, _, rest = cells[0].rpartition("/")
        files = [file.strip() for file in rest.split(",")] if "." in rest else ["train.jsonl", "val.jsonl"]
        folder = folder if "." in rest else cells[0]
        if "ReCoRD" in folder:
            numbers = numbers[-1:]  # "69 passages, 75 queries"
        stated |= {
            f"{folder}/{file}": number
            for file, number in zip(files, numbers * 2, strict=False)
            if file != "dev_ids.tsv"
        }
    return stated


@needs_data
def test_every_row_of_every_official_file_is_loaded():
    """No row is dropped, even with quotes, without a header line, or with an empty answer option; golds are right."""
    counted = {}
    for name in OFFICIAL:
        spec = load_task(name)
        files = spec.source.files
        for split, file in files.splits.items():
            path = DATA / files.folder / file
            place = path.resolve().relative_to(DATA.resolve()).as_posix()
            if path.is_file() and place not in counted:
                rows = load_split(spec, split, DATA)
                assert len({row.id for row in rows}) == len(rows)
                if split in ("train", "dev"):
                    golds = {row.gold for row in rows}
                    assert all(0 <= gold <= 5 for gold in golds) if spec.is_number else golds == set(spec.words)
                    assert name.startswith("glue/") or all(row.tags["idx"].isdigit() for row in rows)
                rows = {row.group for row in rows} if name == "superglue/record" else rows
                counted[place] = len(rows)
    assert counted == stated_rows()
    existing = {
        path.relative_to(DATA).as_posix() for suffix in ("tsv", "jsonl") for path in DATA.glob(f"*/*/*.{suffix}")
    }
    assert set(counted) == existing - {"glue/MRPC/dev_ids.tsv"}


@needs_data
def test_groups_of_the_official_files_are_questions_and_pairs():
    options = {split: load_split(load_task("superglue/multirc"), split, DATA) for split in ("train", "dev")}
    assert [len({row.group for row in rows}) for rows in options.values()] == [5131, 953]
    assert [row.fields["answer"] for row in options["train"]].count("") == 3
    pairs = load_split(load_task("superglue/axg"), "dev", DATA)
    assert [first.group == second.group for first, second in zip(pairs[::2], pairs[1::2], strict=True)] == [True] * 178
    assert len({row.group for row in pairs}) == 178


@needs_data
@pytest.mark.parametrize("split", ["train", "dev"])
def test_both_spans_of_every_official_row_of_wsc_are_marked(split):
    for row in load_split(load_task("superglue/wsc"), split, DATA):
        text = row.fields["text"]
        assert text.count("[") == text.count("]") == 2
        bare = text.replace("[", "").replace("]", "").casefold()
        assert row.fields["phrase"].casefold() in bare
        assert f"[{row.fields['pronoun']}]" in text


@needs_data
def test_both_diagnostics_have_the_same_phenomena():
    dev = load_split(load_task("superglue/axb"), "dev", DATA)
    full = load_split(load_task("glue/ax"), "dev", DATA)
    names = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge")
    assert [[row.tags.get(name, "") for name in names] for row in dev] == [
        [row.tags[name] for name in names] for row in full
    ]
    assert [row.gold == "Yes" for row in dev] == [row.gold == "Entailment" for row in full]


def boolq(folder: Path, content: str, split: str = "dev") -> list[Example]:
    path = folder / "superglue" / "BoolQ" / {"dev": "val.jsonl", "test": "test.jsonl"}[split]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return load_split(load_task("superglue/boolq"), split, folder)


GOOD = '{"question": "is it", "passage": "It is\\u2028so.", "idx": 7, "label": true}'


def test_jsonl_objects_become_rows(tmp_path):
    (example,) = boolq(tmp_path, f"\ufeff{GOOD}\r\n\n")
    assert example == Example(
        "val.jsonl:1", {"passage": "It is\u2028so.", "question": "is it"}, "Yes", "", {"idx": "7"}
    )
    for folder in (tmp_path / "superglue", tmp_path / "superglue" / "BoolQ"):
        assert load_split(load_task("superglue/boolq"), "dev", folder) == [example]


def test_label_is_optional_in_the_test_file(tmp_path):
    assert [row.gold for row in boolq(tmp_path, GOOD.replace(', "label": true', ""), "test")] == [None]
    assert [row.gold for row in boolq(tmp_path, GOOD, "test")] == ["Yes"]


BROKEN = [
    (GOOD + "\n{'question': 1}\n", r"val\.jsonl:2: is not JSON"),
    (GOOD + "\n" + GOOD[:-3] + "\n", r"val\.jsonl:2: is not JSON"),
    (GOOD + "\n\n[1, 2]\n", r"val\.jsonl:3: is a list, not an object: \[1, 2\]"),
    ("9" * 5000, r"val\.jsonl:1: is not JSON"),
    ("[" * 100_000, r"val\.jsonl:1: is not JSON"),
    (GOOD.replace("passage", "pasage"), r"val\.jsonl:1: there is no field 'passage'. Did you mean 'pasage'\?"),
    (GOOD.replace(', "label": true', ""), r"val\.jsonl:1: there is no field 'label'"),
    (GOOD.replace("true", "null"), r"val\.jsonl:1: there is no field 'label'"),
    (
        GOOD.replace("true", '"yes"'),
        r"val\.jsonl:1: 'yes' in column 'label' is not a label of superglue/boolq.*false, true",
    ),
    (GOOD.replace('"is it"', '["is", "it"]'), r"val\.jsonl:1: field 'question' is a list, not text"),
    (GOOD.replace('"is it"', '" "'), r"val\.jsonl:1: field 'question' is empty"),
    ("\n\n", r"val\.jsonl: the file is empty"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=[f"{number}" for number in range(len(BROKEN))])
def test_broken_files_raise_errors_with_file_line_and_field(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        boolq(tmp_path, content)


HUB = {
    "superglue/boolq": ({"question": ["one", "two"], "passage": ["eins", "zwei"]}, [0, 1], ["No", "Yes"]),
    "superglue/cb": ({"premise": ["one", "two"], "hypothesis": ["eins", "zwei"]}, [1, 2], ["Contradiction", "Neutral"]),
    "superglue/rte": ({"premise": ["one", "two"], "hypothesis": ["eins", "zwei"]}, [0, 1], ["Yes", "No"]),
    "superglue/axb": ({"sentence1": ["one", "two"], "sentence2": ["eins", "zwei"]}, [0, 1], ["Yes", "No"]),
}
"""Columns and integer labels of the hub's flat tasks; test_hooks.py has the tasks with a hook."""


def save(path: Path, columns: dict[str, list], labels: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({**columns, "idx": [5, 6], "label": labels}), path)


@pytest.mark.parametrize("name", sorted(HUB))
def test_folder_in_the_hubs_layout(tmp_path, name):
    columns, labels, golds = HUB[name]
    spec = load_task(name)
    hub = spec.source.hub
    save(tmp_path / "super_glue" / hub.config / f"{hub.splits['dev']}-00000-of-00001.parquet", columns, labels)
    rows = load_split(spec, "dev", tmp_path)
    assert [row.gold for row in rows] == golds
    assert [sorted(row.fields.values()) for row in rows] == [["eins", "one"], ["two", "zwei"]]
    assert [dict(row.tags) for row in rows] == [{"idx": "5"}, {"idx": "6"}]
    if "test" in hub.splits:
        save(tmp_path / "super_glue" / hub.config / "test-00000-of-00001.parquet", columns, [-1, -1])
        assert [row.gold for row in load_split(spec, "test", tmp_path)] == [None, None]


@pytest.mark.parametrize("name", ["superglue/axb", "superglue/axg"])
def test_training_rows_of_the_diagnostics_come_from_rte(monkeypatch, name):
    requests = []

    def load_dataset(path, config, *, revision, split):
        requests.append((path, config, revision, split))
        return datasets.Dataset.from_dict({"premise": ["p"], "hypothesis": ["h"], "label": [1], "idx": [0]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("adjudge.tasks.reading.hub.connection_problem", lambda endpoint: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (example,) = load_split(load_task(name), "train")
    assert (dict(example.fields), example.gold) == ({"premise": "p", "hypothesis": "h"}, "No")
    assert requests == [("aps/super_glue", "rte", "3de24cf8022e94f4ee4b9d55a6f539891524d646", "train")]


LONG = " ".join(f"Sentence {number} of the passage says little." for number in range(200))
CUT = {
    "superglue/boolq": {"passage": LONG, "question": "does the last word of the question stay"},
    "superglue/multirc": {
        "passage": LONG,
        "question": "Does the question stay?",
        "answer": "It does, and so does the answer.",
    },
    "superglue/record": {"passage": LONG, "statement": "The statement stays, and so does [Ann]."},
}


@pytest.mark.parametrize("name", sorted(CUT))
def test_long_passage_is_cut_but_not_the_question(tiny_llama, name):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    prompt = Renderer(tokenizer, load_task(name), PromptConfig(max_tokens=512)).prompt(Example("x", CUT[name]))
    text = tokenizer.decode(prompt.ids)
    assert prompt.shortened and 500 < len(prompt.ids) <= 512
    assert "Sentence 0 of the passage" in text and "Sentence 199" not in text
    for field, value in CUT[name].items():
        assert field == "passage" or value in text


def test_template_shows_empty_options_and_highlights(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    options = Renderer(tokenizer, load_task("superglue/multirc"), PromptConfig())
    assert "Answer: (empty)\n" in options.text(Example("x", {"passage": "p", "question": "q", "answer": ""}))
    names = Renderer(tokenizer, load_task("superglue/record"), PromptConfig())
    shown = names.text(Example("x", {"passage": "One.\n@highlight\nTwo.\n@highlight\nThree.", "statement": "s"}))
    assert "One.\n- Two.\n- Three.\n" in shown


def test_prediction_accepts_an_empty_optional_field():
    from adjudge.tasks import examples_for_prediction

    row = {"passage": "p", "question": "q", "answer": ""}
    assert examples_for_prediction(load_task("superglue/multirc"), [row])[0].fields == row
    with pytest.raises(DataError, match="field 'question' is empty"):
        examples_for_prediction(load_task("superglue/multirc"), [{**row, "question": ""}])


def test_numbers_of_a_jsonl_table_keep_their_spelling(tmp_path):
    """The user's own tables are read by the same function."""
    from adjudge.tasks import read_table

    (tmp_path / "own.jsonl").write_text(json.dumps({"a": 1}) + '\n{"a": 1.50, "b": [1.0, true]}\n', encoding="utf-8")
    assert [dict(row) for row in read_table(tmp_path / "own.jsonl")[1]] == [
        {"a": "1", "b": ""},
        {"a": "1.50", "b": "[1.0, true]"},
    ]
