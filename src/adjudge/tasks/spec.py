"""The schema of a task, which is one short YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from adjudge.errors import DataError
from adjudge.tasks.sets import MOST_LISTED, is_set, listed_sets
from adjudge.tasks.table_format import TableFormat, parse_encoding, parse_separator


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NumberAnswer(_Part):
    """A numeric answer between two ends, written with a fixed number of decimals."""

    low: float
    high: float
    decimals: int = Field(1, ge=0, le=6)


class FileSource(_Part):
    """The files of the official download, below ``--data-dir``.

    A file that ends in ``.jsonl`` has one object per line; any other is tab-separated.
    """

    folder: str
    """Folder below the data dir, e.g. ``glue/SST-2``. Its last part alone (``SST-2``) is tried too."""
    splits: dict[str, str]
    """Maps a split (``train``, ``dev``, ``test``) to its file below `folder`; ``..`` leads to a sibling folder."""
    header: bool = True
    columns: tuple[str, ...] = ()
    """Column names in order, for files without a header line."""
    headed: tuple[str, ...] = ()
    """With ``header: false``: the splits whose files do begin with a header line."""
    rename: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Maps a split to its own column names: split to (the file's column to the task's column)."""
    drop_labels: tuple[str, ...] = ()
    """Raw labels that mean "no gold answer" (MNLI's ``-``). Their rows are dropped, with a warning."""
    broken_share: float = Field(0.0, ge=0, lt=1)
    """Largest accepted share of broken rows: a wrong number of columns, or an empty text.

    Some official train and dev files are known to have a few. Up to this share they are dropped with a warning; more
    are an error.
    """


class HubSource(_Part):
    """A data set on the hub: its id, configuration, pinned revision, split names and integer labels."""

    path: str
    config: str | None = None
    revision: str
    splits: dict[str, str]
    configs: dict[str, str] = Field(default_factory=dict)
    """Maps a split to its configuration, where that is not `config`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Maps a field or tag to its hub column, where that differs from the file's column."""
    rename: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Maps a split to its own column names: split to (its column to the column of the other splits)."""
    label: str | None = "label"
    """The hub's column with the gold answer; None when the task's hook makes that column."""
    labels: tuple[str, ...] = ()
    """Raw labels (as in the official files) of the hub's integers 0, 1, 2, …"""

    def config_of(self, split: str) -> str | None:
        """Return the configuration that holds `split`."""
        return self.configs.get(split, self.config)


class VaderSource(_Part):
    """Sentences rated by people, from the source archive of vaderSentiment."""

    part: Literal["movies", "tweets", "news", "products"]
    dev_share: float = Field(0.2, gt=0, lt=1)
    """Share of the texts used as dev rows. A hash of the text decides, so equal texts share a split in all tasks."""
    threshold: float = Field(1.0, gt=0)
    """Label tasks keep the rows with |mean rating| at or above this. Number tasks keep all rows."""


class DatasetOrigin(_Part):
    """The data set whose rows are in a table: its id on the hub, or a folder in the hub's layout."""

    path: str
    config: str | None = None
    revision: str | None = None
    """The commit; of a folder, the hash of its files."""


class TableSource(_Part):
    """The user's own table: CSV, TSV, JSONL or Parquet.

    Without `dev`, dev rows are split off with `split_seed`.
    """

    train: str
    dev: str | None = None
    test: str | None = None
    """Rows that are judged only when they are asked for (``--split test``)."""
    dev_share: float = Field(0.2, gt=0, lt=1)
    split_seed: int = 0
    separator: str | None = None
    """The character between two cells of a CSV or TSV file; None: told from its header."""
    encoding: str | None = None
    """The encoding of the text; None: UTF-8, or what a byte-order mark tells."""
    decimal: Literal[".", ","] = "."
    """The decimal mark in the numbers of the label column."""
    dataset: DatasetOrigin | None = None
    """The data set that the files were made from; they are made again where they are gone."""

    @property
    def form(self) -> TableFormat:
        """How the text of the files is read."""
        return TableFormat(self.separator, self.encoding)

    @field_validator("separator", "encoding")
    @classmethod
    def _known(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None:
            return None
        try:
            return (parse_separator if info.field_name == "separator" else parse_encoding)(text)
        except DataError as error:
            raise ValueError(str(error)) from None


class GeneratedSource(_Part):
    """Rows that are made by a seeded generator, without any file."""

    generator: Literal["programs"]
    """``programs``: straight-line programs over whole numbers that print True or False (`adjudge.tasks.programs`)."""
    train: int = Field(1000, ge=1, le=100_000)
    """Number of training rows."""
    dev: int = Field(400, ge=1, le=100_000)
    """Number of dev rows."""
    seed: int = 0
    lines: tuple[int, int] = (1, 6)
    """Lines of the shortest and of the longest program."""

    @field_validator("lines")
    @classmethod
    def _ordered(cls, lines: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= lines[0] <= lines[1] <= 6:
            raise ValueError("the shortest and the longest program have 1 to 6 lines, as in [1, 6]")
        return lines


class Source(_Part):
    """The places a task's rows can come from; the first one available is used."""

    hook: str | None = None
    """Name of a function in `adjudge.tasks.reading.hooks`, which turns rows of `files` and `hub` into the task's rows.

    Only for layouts that this schema cannot describe.
    """
    files: FileSource | None = None
    hub: HubSource | None = None
    vader: VaderSource | None = None
    generated: GeneratedSource | None = None
    table: TableSource | None = None


class LabelText(_Part):
    """How `adjudge generate` writes a text with one label."""

    prompt: str
    """What stands before the text: Jinja over the first field of a task with two."""
    reward: float = Field(1.0, gt=0)
    """Logits of the given text's tokens are divided by this while they are new: below 1, copying is rewarded."""
    penalty: float = Field(1.0, gt=0)
    """Logits of the tokens that the text has already are divided by this: above 1, repetition is penalised."""
    choose: Literal["likeliest", "random"] = "likeliest"
    """Which of the written texts are kept."""


class Generation(_Part):
    """How `adjudge generate` writes rows of a task, label by label."""

    labels: dict[str, LabelText]
    """Maps each answer word to how its texts are written."""
    starts: tuple[str, ...] = ()
    """First words of the texts, in turn."""
    temperature: float = Field(1.0, ge=0, le=100)
    """0: always the likeliest token."""
    top_k: int = Field(10, ge=0)
    """Draw from this many likeliest tokens; 0: no limit."""
    max_tokens: int = Field(40, ge=1)
    """Longest text; one that has not ended by then is dropped."""


class Procedure(_Part):
    """Steps before the judgement, which some methods take one by one: the lines of a field, or questions."""

    lines: str | None = None
    """The field whose lines are the steps: a program."""
    steps: tuple[str, ...] = ()
    """Questions about the row, each of which is answered before the next."""


class TaskSpec(_Part):
    """One task: its fields, its question, its answers, its metrics, its source."""

    name: str
    title: str
    description: str = ""
    fields: dict[str, str]
    """Maps a field (its name in the template) to the source's column."""
    optional: tuple[str, ...] = ()
    """Fields whose text may be empty. An empty text in any other field is an error."""
    instruction: str
    template: str
    """Jinja template over the fields: the user's part of the prompt."""
    label: str | None = "label"
    """The source's column with the gold answer; None when the task has no gold answers."""
    labels: dict[str, str] | None = None
    """Maps a raw label of the source to its answer word, in order; None for a number task.

    Raw labels with the same word are one label.
    """
    ordered: bool = False
    """True if the labels are listed in an order in which near is less wrong, such as Poor, Fair, Good."""
    several: Literal["words", "passes"] | None = None
    """An answer is a set of the labels: words in their order (``joy, anger``), or asked label by label, yes or no."""
    indicators: bool = False
    """With `several`: each raw label is a column of the source that holds yes or no, and there is no `label` column."""
    number: NumberAnswer | None = None
    metrics: tuple[str, ...]
    """Names from `adjudge.tasks.scoring.metrics`, the primary one first."""
    choices: tuple[str, ...] = ()
    """Fields whose texts the answer chooses from, in the order of the answer words; empty where it does not."""
    group: str | None = None
    """The source's column whose equal values mark rows to be scored together."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Maps a tag to the source's column. Tags are kept for reports and submissions and never shown to a model."""
    slices: tuple[str, ...] = ()
    """Tags whose values are slices: the rows of each are also scored apart. A cell may hold several, with ``|``."""
    positive: str | None = None
    """The answer word that counts as positive in F1; the second label by default."""
    generate: Generation | None = None
    """How `adjudge generate` writes its rows; None: in a form for any labels."""
    procedure: Procedure | None = None
    """How it is judged step by step; None: at once."""
    source: Source

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' words in the task's order; empty for a number task."""
        return tuple(dict.fromkeys(self.labels.values())) if self.labels else ()

    @property
    def words(self) -> tuple[str, ...]:
        """The answers in order; empty for a number task.

        With `several` they are sets: only some of them unless `lists_all`.
        """
        return listed_sets(self.names) if self.several else self.names

    @property
    def lists_all(self) -> bool:
        """True if `words` are all answers, so that they can be weighed against each other."""
        return self.number is None and (self.several is None or len(self.names) <= MOST_LISTED)

    def accepts(self, value: object) -> bool:
        """Return whether a value is an answer of a label task."""
        return is_set(value, self.names) if self.several else value in self.names

    @property
    def gold_columns(self) -> tuple[str, ...]:
        """The source's columns with the gold answer; none when the task has none."""
        if self.indicators:
            return tuple(self.labels or ())
        return () if self.label is None else (self.label,)

    @property
    def on_hub(self) -> tuple[str, str | None] | None:
        """The hub's data set that the rows come from, with its revision; None for rows of other places."""
        if self.source.hub is not None:
            return self.source.hub.path, self.source.hub.revision
        origin = self.source.table.dataset if self.source.table is not None else None
        return None if origin is None or Path(origin.path).is_absolute() else (origin.path, origin.revision)

    @property
    def is_number(self) -> bool:
        """True if the answer is a number, not a label."""
        return self.number is not None

    @property
    def primary(self) -> str:
        """The metric that ranks methods on this task."""
        return self.metrics[0]
