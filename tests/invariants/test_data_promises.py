"""Promise 8: dev rows never reach training; overlap between the splits is detected."""

from pathlib import Path

import pytest

from adjudge.config import load_config
from adjudge.experiments.rows import rows_for
from adjudge.system.files import write_bytes
from adjudge.tasks import find_overlap, infer_task, list_tasks, load_split, load_task, measure_overlap
from adjudge.tasks.reading.same_text import normal_text
from adjudge.tasks.reading.vader import FILES, vader_folder
from adjudge.types import Example

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def keys(examples: list[Example]) -> set[str]:
    return {normal_text(" | ".join(example.fields.values())) for example in examples}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_texts_of_a_table_share_a_split(tmp_path, seed):
    path = tmp_path / "rows.csv"
    lines = [
        f"{variant},{label}"
        for n in range(60)
        for variant in (f"text {n}", f" TEXT  {n} ", f"Text {n}")
        for label in "xy"
    ]
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    spec = infer_task(path, ["text"], "label")
    table = spec.source.table.model_copy(update={"split_seed": seed})
    spec = spec.model_copy(update={"source": spec.source.model_copy(update={"table": table})})
    train, dev = load_split(spec, "train"), load_split(spec, "dev")
    assert not keys(train) & keys(dev)
    assert find_overlap(train, dev) == []
    assert {e.id for e in train} | {e.id for e in dev} == {f"rows.csv:{line}" for line in range(2, 362)}
    assert len(dev) == pytest.approx(0.2 * 360, abs=6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_of_a_table_share_a_split(tmp_path, seed):
    # Four rows per page; a text on two pages links them, directly or through a third one.
    lines = [
        f"text {page if page % 10 > 2 else page // 10 * 10} {row},xy,{page}" for page in range(60) for row in range(4)
    ]
    lines = [line.replace("xy", "xy"[number % 2]) for number, line in enumerate(lines)]
    (tmp_path / "rows.csv").write_text("text,label,page\n" + "\n".join(lines) + "\n", encoding="utf-8")
    spec = infer_task(tmp_path / "rows.csv", ["text"], "label").model_copy(update={"group": "page"})
    table = spec.source.table.model_copy(update={"split_seed": seed})
    spec = spec.model_copy(update={"source": spec.source.model_copy(update={"table": table})})
    train, dev = load_split(spec, "train"), load_split(spec, "dev")
    assert len(train) + len(dev) == 240 and 40 <= len(dev) <= 60
    assert not {row.group for row in train} & {row.group for row in dev}
    assert not keys(train) & keys(dev)


def test_split_of_a_table_does_not_depend_on_row_order(tmp_path):
    lines = [f"text {n},{'xy'[n % 2]}" for n in range(50)]
    dev_keys = []
    for name, order in (("a.csv", lines), ("b.csv", lines[::-1])):
        (tmp_path / name).write_text("text,label\n" + "\n".join(order) + "\n", encoding="utf-8")
        dev_keys.append(keys(load_split(infer_task(tmp_path / name, ["text"], "label"), "dev")))
    assert dev_keys[0] == dev_keys[1]


@pytest.mark.parametrize("part", sorted(FILES))
def test_equal_rated_sentences_share_a_split_across_tasks(tmp_path, monkeypatch, part):
    monkeypatch.setenv("ADJUDGE_CACHE", str(tmp_path))
    texts = [f"{text} {n}" for n in range(400) for text in ("A sentence", "a  SENTENCE")]
    content = "".join(f"{n}\t{(n % 7) - 3}\t{text}\r\n" for n, text in enumerate(texts))
    write_bytes(vader_folder() / FILES[part], content.encode())
    names = [f"vader/{part}", "vader/movies-rating"] if part == "movies" else [f"vader/{part}"]
    train = [e for name in names for e in load_split(load_task(name), "train")]
    dev = [e for name in names for e in load_split(load_task(name), "dev")]
    assert train and dev
    assert not keys(train) & keys(dev)


def test_overlap_between_files_is_detected(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\nleaked row,x\nother,y\n", encoding="utf-8")
    (tmp_path / "dev.csv").write_text("text,label\nnew,y\nLeaked  Row,x\n", encoding="utf-8")
    spec = infer_task(tmp_path / "train.csv", ["text"], "label", dev=tmp_path / "dev.csv")
    assert find_overlap(load_split(spec, "train"), load_split(spec, "dev")) == [("train.csv:2", "dev.csv:3")]


@pytest.mark.parametrize("method", ["few-shot", "sft", "ppo", "encoder"])
@pytest.mark.parametrize(("train_rows", "eval_rows"), [(None, None), (20, 5)])
def test_drop_overlap_removes_every_text_of_the_eval_split(tmp_path, method, train_rows, eval_rows):
    """The whole eval split counts, however few rows are drawn: it may be judged in full later."""
    leaked = [f" Text  {n} " if n % 2 else f"text {n}" for n in range(0, 60, 2)]
    for name, texts in (
        ("train", [f"text {n}" for n in range(60)]),
        ("dev", [*leaked, *(f"new {n}" for n in range(10))]),
    ):
        lines = [f'"{text}",{"xy"[index % 2]}' for index, text in enumerate(texts)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    spec = infer_task(tmp_path / "train.csv", ["text"], "label", dev=tmp_path / "dev.csv")
    data = {"train_rows": train_rows, "eval_rows": eval_rows}
    plain, clean = (
        rows_for(
            load_config(
                values={
                    "method": method,
                    **{f"data.{key}": value for key, value in {**data, "drop_overlap": drop}.items()},
                }
            ),
            [spec],
        )
        for drop in (False, True)
    )
    (plain_part,), (clean_part,) = plain.parts, clean.parts
    assert keys(plain_part.rows) & keys(load_split(spec, "dev"))
    assert not keys(clean_part.rows) & keys(load_split(spec, "dev"))
    assert len(clean_part.rows) == (train_rows or 30)
    assert clean.eval_rows == plain.eval_rows


OFFICIAL = {
    "glue/ax": (0, 0),
    "glue/cola": (16, 16),
    "glue/mnli": (0, 0),
    "glue/mnli-mm": (0, 0),
    "glue/mrpc": (0, 0),
    "glue/qnli": (0, 0),
    "glue/qqp": (0, 0),
    "glue/rte": (0, 0),
    "glue/sst2": (0, 0),
    "glue/stsb": (6, 6),
    "glue/wnli": (0, 0),
    "superglue/axb": (0, 0),
    "superglue/axg": (0, 0),
    "superglue/boolq": (0, 0),
    "superglue/cb": (0, 0),
    "superglue/copa": (0, 0),
    "superglue/multirc": (0, 0),
    "superglue/record": (0, 0),
    "superglue/rte": (0, 0),
    "superglue/wic": (0, 0),
    "superglue/wsc": (0, 0),
}
"""Number of dev rows that are also in train, in the files of shared/data: (normalised, exact).

docs/reference/tasks.md has the same figures.
"""


def test_every_official_task_is_covered():
    assert set(OFFICIAL) == {name for name in list_tasks() if name.startswith(("glue/", "superglue/"))}


@pytest.mark.skipif(
    not (DATA / "glue").is_dir(), reason="the official GLUE and SuperGLUE folders are not next to the checkout"
)
@pytest.mark.parametrize("name", OFFICIAL)
def test_overlap_of_the_official_splits_is_known(name):
    spec = load_task(name)
    overlap = measure_overlap(load_split(spec, "train", DATA), load_split(spec, "dev", DATA))
    assert (overlap.normalised, overlap.exact) == OFFICIAL[name]
