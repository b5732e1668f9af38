"""A task is one short YAML file; this is its schema."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NumberAnswer(_Part):
    """An answer that is a number between two ends, written with a fixed number of decimals."""

    low: float
    high: float
    decimals: int = Field(1, ge=0, le=6)


class FileSource(_Part):
    """Where the rows lie in a downloaded folder (under ``--data-dir``) and how its files are laid out.

    A file that ends in ``.jsonl`` has one object a line; any other is tab-separated.
    """

    folder: str
    """Candidate folder below the data dir, e.g. ``glue/SST-2``; the last part alone (``SST-2``) is tried too."""
    splits: dict[str, str]
    """Split name (``train``, ``dev``, ``test``) to the file's path below the folder (``..`` is allowed for a sibling task's file)."""
    header: bool = True
    columns: tuple[str, ...] = ()
    """Column names of a file without a header line, in order."""
    headed: tuple[str, ...] = ()
    """With ``header: false``: the splits whose files begin with a header line all the same."""
    rename: dict[str, dict[str, str]] = Field(default_factory=dict)
    """For a split whose file names its columns otherwise: split to (the file's column to the task's column)."""
    drop_labels: tuple[str, ...] = ()
    """Raw labels that mean "no gold answer" (MNLI's ``-``); rows with one are left out, counted and said."""
    broken_share: float = Field(0.0, ge=0, lt=1)
    """Largest share of rows with a wrong number of columns or an empty text that the official train or dev file is known to
    carry; up to that share they are left out, counted and said, beyond it they are an error."""


class HubSource(_Part):
    """Where the rows lie on the hub: data set id, configuration, pinned revision, its split names and integer labels."""

    path: str
    config: str | None = None
    revision: str
    splits: dict[str, str]
    configs: dict[str, str] = Field(default_factory=dict)
    """For a split that lies in another configuration than `config`: split to its configuration."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Name of a field or tag to hub column, where it differs from the file's column."""
    rename: dict[str, dict[str, str]] = Field(default_factory=dict)
    """For a split that names its columns otherwise: split to (its column to the column that the other splits have)."""
    label: str | None = "label"
    """The hub's column with the gold answer; None when the task's hook makes it."""
    labels: tuple[str, ...] = ()
    """Raw label (as in the official files) for the hub's integer 0, 1, 2, …"""

    def config_of(self, split: str) -> str | None:
        """The configuration in which `split` lies."""
        return self.configs.get(split, self.config)


class VaderSource(_Part):
    """Rows of the human-rated sentences that the source archive of vaderSentiment carries."""

    part: Literal["movies", "tweets", "news", "products"]
    dev_share: float = Field(0.2, gt=0, lt=1)
    """Share of the texts that are dev rows; a hash of the text decides, so equal texts share a split, across tasks too."""
    threshold: float = Field(1.0, gt=0)
    """Label tasks keep the rows with |mean rating| at or above this; number tasks keep all."""


class TableSource(_Part):
    """The user's own table: CSV, TSV, JSONL or Parquet. Without `dev`, dev rows are split off by `split_seed`."""

    train: str
    dev: str | None = None
    dev_share: float = Field(0.2, gt=0, lt=1)
    split_seed: int = 0


class Source(_Part):
    """All the places a task's rows can come from; the first that is there is used."""

    hook: str | None = None
    """Name from `adjudge.tasks.reading.hooks`: what turns the rows of `files` and `hub` into the task's, where YAML cannot say it."""

    files: FileSource | None = None
    hub: HubSource | None = None
    vader: VaderSource | None = None
    table: TableSource | None = None


class TaskSpec(_Part):
    """One task: its fields, its question, its answers, its metrics, its source."""

    name: str
    title: str
    description: str = ""
    fields: dict[str, str]
    """Field name (used in the template) to the source's column."""
    optional: tuple[str, ...] = ()
    """Fields whose text may be empty; in any other that is an error."""
    instruction: str
    template: str
    """Jinja text over the field names: the user's part of the prompt."""
    label: str | None = "label"
    """The source's column with the gold answer; None when the task has no gold answers."""
    labels: dict[str, str] | None = None
    """Raw label in the source to answer word, in order; None for a number task."""
    number: NumberAnswer | None = None
    metrics: tuple[str, ...]
    """Names from `adjudge.tasks.scoring.metrics`, the primary one first."""
    group: str | None = None
    """The source's column whose equal values make a group of rows that are scored together."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tag to the source's column: kept beside the row for reports and submissions, never shown to a model."""
    positive: str | None = None
    """The answer word that counts as positive in F1; default: the second label."""
    source: Source

    @property
    def words(self) -> tuple[str, ...]:
        """Answer words in the task's label order; empty for a number task."""
        return tuple(self.labels.values()) if self.labels else ()

    @property
    def is_number(self) -> bool:
        """Whether the answer is a number and not a label."""
        return self.number is not None

    @property
    def primary(self) -> str:
        """The metric that ranks methods on this task."""
        return self.metrics[0]
