"""The submission files of GLUE and SuperGLUE as data: one `Form` per file.

Sources: arXiv 1804.07461 and 1905.00537, the frequently asked questions of gluebenchmark.com and
super.gluebenchmark.com, and the row counts of the official test sets. MultiRC's rows are answer options, ReCoRD's are
queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adjudge.errors import DataError, nearest

HEADER = ("index", "prediction")
"""The columns of a GLUE file, in order."""

LOW, HIGH = 0.0, 5.0
"""The ends of STS-B's scale; the site refuses numbers outside."""

_BITS = ("0", "1")
_TWO_WAY = ("entailment", "not_entailment")
_THREE_WAY = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, slots=True)
class Form:
    """The form of one file of a submission."""

    file: str
    task: str
    rows: int
    """Number of official indices: 0 to rows − 1, each once in the file."""
    labels: tuple[str | int, ...] = ()
    """Allowed predictions, as text or number like the site's; empty for a number task or the text of an entity."""
    shape: Literal["label", "number", "options", "entity"] = "label"
    """A label per row, a number per row, MultiRC's passages with answer options, or ReCoRD's entity per query."""
    judged_by: str = ""
    """The task whose model judges this one, when this one has no training rows of its own."""
    split: str = "test"
    """The task's split with the official test set; ``dev`` when the official file contains the labels."""
    text_idx: bool = False
    """True if the official file writes its indices as text, so a submission may too."""

    @property
    def suite(self) -> str:
        """``glue`` or ``superglue``."""
        return self.task.partition("/")[0]

    @property
    def is_json(self) -> bool:
        """True for a file with one JSON object per line; otherwise it is tab-separated with a header line."""
        return self.file.endswith(".jsonl")


SUITES: dict[str, tuple[Form, ...]] = {
    "glue": (
        Form("CoLA.tsv", "glue/cola", 1_063, _BITS),
        Form("SST-2.tsv", "glue/sst2", 1_821, _BITS),
        Form("MRPC.tsv", "glue/mrpc", 1_725, _BITS),
        Form("STS-B.tsv", "glue/stsb", 1_379, shape="number"),
        Form("MNLI-m.tsv", "glue/mnli", 9_796, _THREE_WAY),
        Form("MNLI-mm.tsv", "glue/mnli-mm", 9_847, _THREE_WAY, judged_by="glue/mnli"),
        Form("QNLI.tsv", "glue/qnli", 5_463, _TWO_WAY),
        Form("QQP.tsv", "glue/qqp", 390_965, _BITS),
        Form("RTE.tsv", "glue/rte", 3_000, _TWO_WAY),
        Form("WNLI.tsv", "glue/wnli", 146, _BITS),
        Form("AX.tsv", "glue/ax", 1_104, _THREE_WAY, judged_by="glue/mnli"),
    ),
    "superglue": (
        Form("BoolQ.jsonl", "superglue/boolq", 3_245, ("true", "false")),
        Form("CB.jsonl", "superglue/cb", 250, _THREE_WAY),
        Form("COPA.jsonl", "superglue/copa", 500, (0, 1)),
        Form("MultiRC.jsonl", "superglue/multirc", 9_693, (0, 1), shape="options"),
        Form("ReCoRD.jsonl", "superglue/record", 10_000, shape="entity"),
        Form("RTE.jsonl", "superglue/rte", 3_000, _TWO_WAY),
        Form("WiC.jsonl", "superglue/wic", 1_400, ("true", "false")),
        Form("WSC.jsonl", "superglue/wsc", 146, ("True", "False")),
        Form("AX-b.jsonl", "superglue/axb", 1_104, _TWO_WAY, judged_by="superglue/rte", split="dev", text_idx=True),
        Form("AX-g.jsonl", "superglue/axg", 356, _TWO_WAY, judged_by="superglue/rte", split="dev"),
    ),
}

FORMS: tuple[Form, ...] = tuple(form for forms in SUITES.values() for form in forms)


def form_of_file(name: str) -> Form | None:
    """Return the form of the file with this name, or None when no submission has such a file."""
    return next((form for form in FORMS if form.file == name), None)


def form_of_task(task: str) -> Form:
    """Return the form of a task's file. Raises DataError for a task that no site takes."""
    for form in FORMS:
        if form.task == task:
            return form
    raise DataError(f"No site takes answers for the task {task}.{nearest(task, [form.task for form in FORMS])}")


def official_label(form: Form, raw: str) -> str | int | None:
    """Return the site's label for a task's label, or None. Case may differ: WSC has ``True``."""
    return {str(label).casefold(): label for label in form.labels}.get(raw.casefold())
