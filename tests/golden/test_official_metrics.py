"""Test every metric on the official dev files with fixed answers, against independent computations.

The answers are one label for everything, the gold answers, and the gold answers with a tenth flipped by a seed. The
gold answers are read from the files in plain Python. The references are scikit-learn, scipy, and for group metrics
their definition.
"""

import json
import random
import re
import string
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest
import scipy.stats
import sklearn.metrics

from adjudge.evaluation.diagnostics import diagnose
from adjudge.evaluation.score import score
from adjudge.tasks import list_tasks, load_split, load_task
from adjudge.tasks.scoring.suites import SUITES
from adjudge.types import Prediction

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_glue = pytest.mark.skipif(
    not (DATA / "glue").is_dir(), reason="the official GLUE folder is not next to the checkout"
)
needs_superglue = pytest.mark.skipif(
    not (DATA / "superglue").is_dir(), reason="the official SuperGLUE folder is not next to the checkout"
)
ANSWERS = ("constant", "gold", "flipped")

NO_YES = {"0": "No", "1": "Yes"}
ENTAILMENT = {"entailment": "Entailment", "contradiction": "Contradiction", "neutral": "Neutral"}
TWO_WAY = {"not_entailment": "No", "entailment": "Yes"}
GLUE_FILES = {
    "glue/cola": ("CoLA/dev.tsv", 1, NO_YES),
    "glue/sst2": ("SST-2/dev.tsv", "label", {"0": "Negative", "1": "Positive"}),
    "glue/mrpc": ("MRPC/dev.tsv", "Quality", NO_YES),
    "glue/stsb": ("STS-B/dev.tsv", "score", None),
    "glue/qqp": ("QQP/dev.tsv", "is_duplicate", NO_YES),
    "glue/mnli": ("MNLI/dev_matched.tsv", "gold_label", ENTAILMENT),
    "glue/mnli-mm": ("MNLI/dev_mismatched.tsv", "gold_label", ENTAILMENT),
    "glue/qnli": ("QNLI/dev.tsv", "label", TWO_WAY),
    "glue/rte": ("RTE/dev.tsv", "label", TWO_WAY),
    "glue/wnli": ("WNLI/dev.tsv", "label", NO_YES),
    "glue/ax": ("AX/diagnostic-full.tsv", "Label", ENTAILMENT),
}
SUPERGLUE_FILES = {
    "superglue/boolq": ("BoolQ/val.jsonl", {"False": "No", "True": "Yes"}),
    "superglue/cb": ("CB/val.jsonl", ENTAILMENT),
    "superglue/copa": ("COPA/val.jsonl", {"0": "Option one", "1": "Option two"}),
    "superglue/rte": ("RTE/val.jsonl", TWO_WAY),
    "superglue/wic": ("WiC/val.jsonl", {"False": "Different", "True": "Same"}),
    "superglue/wsc": ("WSC/val.jsonl", {"False": "No", "True": "Yes"}),
    "superglue/axb": ("AX-b/AX-b.jsonl", TWO_WAY),
    "superglue/axg": ("AX-g/AX-g.jsonl", TWO_WAY),
}
"""File, column (or its index) of the gold answer, and the answer word of each raw label."""

REFERENCES = {
    "accuracy": sklearn.metrics.accuracy_score,
    "macro_f1": lambda gold, pred: sklearn.metrics.f1_score(gold, pred, average="macro"),
    "matthews": sklearn.metrics.matthews_corrcoef,
    "mae": sklearn.metrics.mean_absolute_error,
}


def flips(*key) -> bool:
    """Return True for a tenth of all keys, independent of their order."""
    return random.Random(repr(key)).random() < 0.1


def gold_of_glue(name):
    file, column, words = GLUE_FILES[name]
    lines = (DATA / "glue" / file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if isinstance(column, str):
        column, lines = lines[0].split("\t").index(column), lines[1:]
    raw = [line.split("\t")[column] for line in lines]
    return [words[cell] for cell in raw] if words else [float(cell) for cell in raw]


def objects(file):
    with (DATA / "superglue" / file).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def answered(golds, words, which):
    """Return answers to rows with these gold answers; a flipped number is mirrored in its range."""
    if which == "constant":
        return [words[1] if words else 2.5] * len(golds)
    if which == "gold":
        return list(golds)
    if not words:
        return [5 - gold if flips(row) else gold for row, gold in enumerate(golds)]
    return [words[(words.index(gold) + flips(row)) % len(words)] for row, gold in enumerate(golds)]


def reference(metric, golds, answers, words):
    if metric == "f1":
        return sklearn.metrics.f1_score(golds, answers, pos_label=words[1], zero_division=0)
    if metric in ("pearson", "spearman"):
        if len(set(answers)) == 1:
            return 0.0  # undefined
        return getattr(scipy.stats, f"{metric}r")(golds, answers).statistic
    return REFERENCES[metric](golds, answers)


def figures(spec, rows, values, probabilities=None):
    """Return the value of each metric of the task, with few resamples to save time."""
    shares = probabilities or [None] * len(rows)
    predictions = [Prediction.of(*row) for row in zip(rows, map(str, values), values, shares, strict=True)]
    metrics = score(spec, predictions, resamples=100)["metrics"]
    return {name: figure["value"] for name, figure in metrics.items()}


def check_rows(name, golds, which):
    """Compare the metrics of our loader's rows with references on the file's gold answers; return ours."""
    spec = load_task(name)
    rows = load_split(spec, "dev", DATA)
    assert [row.gold for row in rows] == golds
    answers = answered(golds, spec.words, which)
    values = figures(spec, rows, answers)
    official = {metric for suite in SUITES for member in suite.members for metric in member.parts.get(name, ())}
    assert official <= set(values)
    for metric, value in values.items():
        if metric in {"accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "mae"}:
            assert value == pytest.approx(reference(metric, golds, answers, spec.words), abs=1e-12), metric
    return values


@needs_glue
@pytest.mark.parametrize("which", ANSWERS)
@pytest.mark.parametrize("name", sorted(GLUE_FILES))
def test_metrics_of_glue(name, which):
    values = check_rows(name, gold_of_glue(name), which)
    for metric, value in values.items():
        if which == "gold":
            assert value == pytest.approx(0 if metric == "mae" else 1)
        if which == "flipped" and metric == "accuracy":
            assert value == pytest.approx(0.9, abs=0.05)


@needs_superglue
@pytest.mark.parametrize("which", ANSWERS)
@pytest.mark.parametrize("name", sorted(SUPERGLUE_FILES))
def test_metrics_of_superglue(name, which):
    file, words = SUPERGLUE_FILES[name]
    values = check_rows(name, [words[str(line["label"])] for line in objects(file)], which)
    assert which != "gold" or set(values.values()) == {1.0}


@needs_superglue
@pytest.mark.parametrize("which", ANSWERS)
def test_gender_parity_of_the_official_pairs(which):
    golds = [TWO_WAY[line["label"]] for line in objects("AX-g/AX-g.jsonl")]
    spec = load_task("superglue/axg")
    answers = answered(golds, spec.words, which)
    pairs = list(zip(answers[::2], answers[1::2], strict=True))
    parity = sum(one == other for one, other in pairs) / len(pairs)
    assert figures(spec, load_split(spec, "dev", DATA), answers)["gender_parity"] == pytest.approx(parity)
    assert which == "flipped" or parity == 1.0


@needs_superglue
@pytest.mark.parametrize("which", ANSWERS)
def test_f1a_and_exact_match_of_multirc(which):
    right, hits, golds, positives = [], 0, 0, 0
    answers = {}
    for passage in objects("MultiRC/val.jsonl"):
        for question in passage["passage"]["questions"]:
            same = True
            for option in question["answers"]:
                key = (str(passage["idx"]), str(question["idx"]), str(option["idx"]))
                gold = option["label"] == 1
                answer = {"constant": True, "gold": gold, "flipped": gold != flips(*key)}[which]
                answers[key] = "True" if answer else "False"
                hits, golds, positives = hits + (gold and answer), golds + gold, positives + answer
                same = same and gold == answer
            right.append(same)
    precision, recall = hits / positives, hits / golds
    spec = load_task("superglue/multirc")
    rows = load_split(spec, "dev", DATA)
    assert len(rows) == len(answers) == 4848 and len(right) == 953
    values = figures(
        spec, rows, [answers[row.tags["passage_idx"], row.tags["question_idx"], row.tags["idx"]] for row in rows]
    )
    assert values["f1a"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert values["group_exact"] == pytest.approx(fmean(right))


def squad_words(text):
    """Return the words of an answer as SQuAD 1.1 compares them."""
    kept = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", kept)) if word]


def squad_f1(answer, gold):
    one, other = squad_words(answer), squad_words(gold)
    shared = sum((Counter(one) & Counter(other)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(one), shared / len(other)
    return 2 * precision * recall / (precision + recall)


@needs_superglue
@pytest.mark.parametrize("which", ANSWERS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_token_f1_and_exact_match_of_record(which, split):
    f1, exact, chances = [], [], {}
    for passage in objects(f"ReCoRD/{split}.jsonl"):
        text = passage["passage"]["text"]
        names = {text[entity["start"] : entity["end"] + 1] for entity in passage["passage"]["entities"]}
        for query in passage["qas"]:
            golds = {answer["text"] for answer in query["answers"]}
            mine = {}
            for name in names:
                key = (str(query["idx"]), name)
                likely = which != "constant" and (name in golds) != (which == "flipped" and flips(*key))
                mine[key] = 0.9 * likely + 0.05 * random.Random(repr(key)).random()  # no two alike
            chances |= mine
            best = max(mine, key=mine.get)[1]
            f1.append(max(squad_f1(best, gold) for gold in golds))
            exact.append(max(squad_words(best) == squad_words(gold) for gold in golds))
    spec = load_task("superglue/record")
    rows = load_split(spec, {"train": "train", "val": "dev"}[split], DATA)
    assert len(rows) == len(chances)
    shares = [chances[row.tags["idx"], row.tags["candidate"]] for row in rows]
    values = figures(spec, rows, [row.gold for row in rows], [{"No": 1 - share, "Yes": share} for share in shares])
    assert values["record_f1"] == pytest.approx(fmean(f1))
    assert values["record_em"] == pytest.approx(fmean(exact))
    assert which != "gold" or fmean(exact) == fmean(f1) == 1.0


CATEGORIES = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge")


def phenomena_of_file(name):
    """Return the gold answers of a diagnostic set, and the (category, phenomenon) pairs of each row.

    The phenomenon None stands for any in its category.
    """
    if name == "glue/ax":
        lines = (DATA / "glue" / "AX/diagnostic-full.tsv").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        head = lines[0].split("\t")
        cells = [dict(zip(head, line.split("\t"), strict=True)) for line in lines[1:]]
        golds = [ENTAILMENT[row["Label"]] for row in cells]
    else:
        keys = {"lexical-semantics": CATEGORIES[0], "predicate-argument-structure": CATEGORIES[1]}
        keys |= {"logic": CATEGORIES[2], "knowledge": CATEGORIES[3]}
        rows = objects("AX-b/AX-b.jsonl")
        cells = [{category: row.get(key, "") for key, category in keys.items()} for row in rows]
        golds = [TWO_WAY[row["label"]] for row in rows]
    named = [{(c, part) for c in CATEGORIES for part in (row[c] or "").split(";") if part} for row in cells]
    return golds, [pairs | {(category, None) for category, _ in pairs} for pairs in named]


@needs_glue
@needs_superglue
@pytest.mark.parametrize("name", ["glue/ax", "superglue/axb"])
def test_figures_per_phenomenon(name):
    golds, named = phenomena_of_file(name)
    spec = load_task(name)
    answers = answered(golds, spec.words, "flipped")
    predictions = [
        Prediction.of(row, "", answer) for row, answer in zip(load_split(spec, "dev", DATA), answers, strict=True)
    ]
    values = diagnose(spec, [predictions], resamples=100)
    assert {(item["category"], item["phenomenon"]) for item in values} == set().union(*named)
    assert len(values) == 37
    for item in values:
        mine = [index for index, pairs in enumerate(named) if (item["category"], item["phenomenon"]) in pairs]
        pairs = [golds[index] for index in mine], [answers[index] for index in mine]
        assert item["n"] == len(mine) >= 18
        assert item["metrics"]["matthews"]["value"] == pytest.approx(sklearn.metrics.matthews_corrcoef(*pairs))
        assert item["metrics"]["accuracy"]["value"] == pytest.approx(sklearn.metrics.accuracy_score(*pairs))


def test_every_task_of_the_suites_is_checked():
    checked = {*GLUE_FILES, *SUPERGLUE_FILES, "superglue/multirc", "superglue/record"}
    assert checked == {name for name in list_tasks() if name.startswith(("glue/", "superglue/"))}
    assert {part for suite in SUITES for member in suite.members for part in member.parts} <= checked
