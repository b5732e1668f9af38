"""Write rows for labels with a language model, and keep the likeliest.

1. Of each label, write `oversample` texts per row that is wanted, after the label's prompt (`plan`, `decoding`).
2. Drop what is no sentence, repeated, written for two labels, or among the rows that are judged (`selection`).
3. Keep those with the highest mean log-probability under the model itself.

Differs from arXiv 2202.04538 (SuperGen):

1. The score is the model's own log-probability. There it is computed from the logits after penalty and top-k.
2. A text ends with its first sentence. There a text of SST-2 ends at its last stop.
3. Texts are drawn in batches, each with a seed of its own. There each text has its own.
4. CoLA's two temperatures and QNLI's continuations are not there.

OUT.csv     the fields and the label of each row; the labels take turns
OUT.json    what was asked, the prompts, the counts, and each row's score
OUT.yaml    with a task: the task over these rows
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adjudge.config import Config
from adjudge.errors import ConfigError, DataError
from adjudge.generation.decoding import Repetition, TextEnd, first_sentence, mean_logp, span_of
from adjudge.generation.plan import Plan, PromptIds
from adjudge.generation.selection import (
    REASONS,
    Selection,
    Written,
    distinct_2,
    fields_of,
    mean_scores,
    select,
    shares,
    usable,
)
from adjudge.generation.work import Work, files_at
from adjudge.models.plain_text import control_tokens
from adjudge.models.policy import Policy
from adjudge.models.sources.bundled import published_name
from adjudge.models.sources.random_models import is_random
from adjudge.rollout.sampler import Sampling, respond
from adjudge.system.console import note, progress, warn
from adjudge.system.files import SURROGATES, write_json, write_text
from adjudge.tasks import spec_to_yaml
from adjudge.tasks.spec import Source, TableSource, TaskSpec
from adjudge.version import __version__

MOST_ROUNDS = 3
"""Times the planned texts that are written at most, when too few of them are left."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted."""

    plan: Plan
    rows: int
    """Number of rows, of all labels together."""
    oversample: int = 4
    """Texts written per row."""
    at_random: bool = False
    """Draw the rows among the texts, instead of taking the likeliest."""
    given: tuple[str, ...] = ()
    """The first texts of pairs."""
    given_from: str = ""
    """Where these came from."""
    judged: frozenset[str] = frozenset()
    """Keys of the rows that are judged; none of them may be generated."""


def check_order(order: Order, config: Config, out: Path, inputs: Sequence[Path] = ()) -> None:
    """Raise ConfigError for what can be refused before a model is loaded.

    Writing over one of `inputs` is an example. Raises DataError where second texts are wanted and no first ones given.
    """
    if out.suffix.lower() != ".csv":
        raise ConfigError(f"--out {out}: the rows are written as CSV. Name a file that ends in .csv.")
    taken = [path for path in inputs if path.resolve() in [file.resolve() for file in files_at(out)]]
    if taken:
        raise ConfigError(f"--out {out} would write over {taken[0]}, which is read. Name another file.")
    if order.rows < len(order.plan.words):
        raise ConfigError(f"--rows {order.rows} is fewer than the {len(order.plan.words)} labels: each needs a row.")
    if "label" in order.plan.fields:
        raise ConfigError(f"{order.plan.name} has a field called 'label', as the column of the labels. Rename it.")
    if is_random(config.model):
        raise ConfigError(f"{config.model} has random weights, and writes noise. Name a real model.")
    if order.plan.given is not None and not order.given:
        raise DataError("There is no first text to write a second one for: give --corpus FILE, one text per line.")


def identity_of(order: Order, config: Config) -> dict[str, Any]:
    """Return what makes two commands write the same texts."""
    given = hashlib.sha256("\n".join(order.given).encode("utf-8", "surrogatepass")).hexdigest()
    judged_hash = hashlib.sha256("\n".join(sorted(order.judged)).encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "adjudge": __version__,
        "model": published_name(config.model),
        "dtype": config.runtime.dtype,
        "batch_size": config.evaluation.batch_size,
        "seed": config.seed,
        "rows": order.rows,
        "oversample": order.oversample,
        "select": "random" if order.at_random else "top",
        "task": order.plan.name,
        "fields": list(order.plan.fields),
        "form": order.plan.form,
        "how": order.plan.how.model_dump(mode="json"),
        "given": {"texts": len(order.given), "from": order.given_from, "sha256": given},
        "judged": {"rows": len(order.judged), "sha256": judged_hash},
    }


def generate(
    policy: Policy, config: Config, order: Order, out: Path, work: Work, spec: TaskSpec | None = None
) -> Selection:
    """Write the texts that are missing, choose the rows, and write the files.

    `spec` is the task whose rows they are. Given again after a kill, it goes on, with the result of a run never killed.
    Raises DataError without any row.
    """
    with work:
        write_texts(policy, config, order, work)
        texts = [text for batch in work.batches for text in batch]
        selection = select(order.plan, texts, order.judged, order.rows, config.seed, at_random=order.at_random)
        _check_rows(order, selection, len(texts))
        content = _csv(order.plan, selection.rows)
        record = {
            **identity_of(order, config),
            "written": len(texts),
            "dropped": selection.dropped,
            "passed": selection.passed,
            "kept": {word: sum(row.word == word for row in selection.rows) for word in order.plan.words},
            "mean_score": mean_scores(selection.rows, order.plan.words),
            "distinct_2": distinct_2([row.text for row in selection.rows]),
            "tokens": sum(text.tokens for text in texts),
            "csv_sha256": hashlib.sha256(bytes(content, "utf-8", SURROGATES)).hexdigest(),
            "scores": [row.score for row in selection.rows],
        }
        if spec is not None:
            write_text(out.with_suffix(".yaml"), spec_to_yaml(task_over(spec, out)))
        write_json(out.with_suffix(".json"), record)
        write_text(out, content)
        work.remove()
    return selection


def write_texts(policy: Policy, config: Config, order: Order, work: Work) -> None:
    """Write all batches of texts that `work` does not have yet, label by label."""
    policy.eval()
    writer = _Writer(policy, config, order)
    done = iter(list(work.batches))
    planned = {word: count * order.oversample for word, count in shares(order.plan.words, order.rows).items()}
    with progress("writing", sum(planned.values())) as bar:
        for word in order.plan.words:
            texts: list[Written] = []
            batch = 0
            while more := _more(order, word, texts, planned[word], config.evaluation.batch_size):
                batch_texts = next(done, None)
                if batch_texts is None:
                    batch_texts = writer.batch(word, batch, range(len(texts), len(texts) + more))
                    work.add(batch_texts)
                texts += batch_texts
                batch += 1
                bar.advance(more, label=word, texts=len(texts))


def _more(order: Order, word: str, texts: Sequence[Written], planned: int, size: int) -> int:
    """Return how many texts of a label are written next: 0 when there are enough, or no more are tried."""
    if len(texts) < planned:
        return min(size, planned - len(texts))
    if len(usable(order.plan, texts, order.judged)[0]) >= shares(order.plan.words, order.rows)[word]:
        return 0
    return min(size, MOST_ROUNDS * planned - len(texts))


class _Writer:
    """A model that writes batches of texts."""

    def __init__(self, policy: Policy, config: Config, order: Order) -> None:
        self._policy, self._seed, self._order = policy, config.seed, order
        tokenizer, how = policy.tokenizer, order.plan.how
        self._ids = PromptIds(tokenizer, order.plan, config.prompt)
        ends = dict.fromkeys([*policy.end_ids, *control_tokens(tokenizer).values()])
        self._end = TextEnd(tokenizer, tuple(ends), how.max_tokens)
        self._given = self._short_enough(config.prompt.max_tokens)

    def batch(self, word: str, number: int, places: Sequence[int]) -> list[Written]:
        """Write the texts of a label with these numbers."""
        plan, how = self._order.plan, self._order.plan.how
        given = [self._given[index % len(self._given)] if self._given else "" for index in places]
        starts = [plan.start(index) for index in places]
        prompts = [self._ids.of(word, *pair) for pair in zip(given, starts, strict=True)]
        repetition = Repetition(
            [self._ids.tokens(text) if text else [] for text in given],
            [self._ids.tokens(text) if text else [] for text in starts],
            how.labels[word].reward,
            how.labels[word].penalty,
            how.temperature,
        )
        label = plan.words.index(word)
        seed = ((self._seed * 1_000_003 + label) * 1_000_003 + number) % 2**63
        generator = torch.Generator().manual_seed(seed) if how.temperature else None
        self._policy.forget_prefix()  # a resumed run has none: the last bits must not depend on it
        with torch.no_grad():
            responses = respond(
                self._policy,
                self._policy.prefill(prompts),
                self._end,
                Sampling(generator, top_k=how.top_k),
                repetition,
            )
        texts = []
        for row, (first, start) in enumerate(zip(given, starts, strict=True)):
            ids = responses.ids[row]
            sentence, dropped = first_sentence(f"{start}{self._end.text(ids)}")
            score = mean_logp(responses.logp_BR[row, span_of(self._end, ids, sentence, start)])
            texts.append(Written(word, first, sentence, dropped, score, len(ids)))
        return texts

    def _short_enough(self, most_tokens: int) -> list[str]:
        """Return the given texts in random order, without those too long for a prompt. Raises DataError."""
        order, most = self._order, self._policy.positions
        if not order.given:
            return []
        if most is not None:
            most_tokens = min(most_tokens, most.count - order.plan.how.max_tokens)
        longest = MOST_ROUNDS * order.oversample * -(-order.rows // len(order.plan.words))
        drawn = random.Random(self._seed).sample(order.given, min(longest, len(order.given)))
        short = [text for text in drawn if len(self._ids.of(order.plan.words[0], text, "")) <= most_tokens]
        if len(short) < len(drawn):
            note(f"{len(drawn) - len(short):,} first texts are longer than {most_tokens} tokens and are left out.")
        if not short:
            raise DataError(f"Every first text is longer than {most_tokens} tokens. Give shorter ones with --corpus.")
        return short


def _check_rows(order: Order, selection: Selection, written: int) -> None:
    """Warn of labels with fewer rows than asked. Raises DataError for one without any."""
    wanted = shares(order.plan.words, order.rows)
    dropped = [f"{count:,} {REASONS[reason]}" for reason, count in selection.dropped.items()]
    reasons = ", ".join(dropped) or "none was dropped"
    for word in order.plan.words:
        kept = sum(row.word == word for row in selection.rows)
        if kept == 0:
            raise DataError(
                f"No text of {word} is left of the {written:,} that were written ({reasons}). Use a larger model, "
                "other prompts (--prompt, or `generate` in the task file), a higher --max-tokens, or --force with "
                "a higher --oversample."
            )
        if kept < wanted[word]:
            warn(
                f"{kept:,} rows of {word} instead of {wanted[word]:,} are left of the {written:,} texts ({reasons}). "
                "A higher --oversample writes more."
            )


def _csv(plan: Plan, rows: Sequence[Written]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*plan.fields, "label"])
    writer.writerows([*fields_of(plan, row).values(), row.word] for row in rows)
    return buffer.getvalue()


def task_over(spec: TaskSpec, out: Path) -> TaskSpec:
    """Return the task that reads the generated rows: the same question, with the answer words as labels."""
    grouped = spec.group is not None
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", out.stem).strip("-.") or "rows"
    return spec.model_copy(
        update={
            "name": name,
            "title": f"{spec.title}, generated rows",
            "description": "",
            "fields": {field: field for field in spec.fields},
            "label": "label",
            "labels": {word: word for word in spec.words},
            "metrics": ("accuracy", "macro_f1") if grouped else spec.metrics,
            "group": None,
            "tags": {},
            "generate": None,
            "source": Source(table=TableSource(train=out.name)),
        }
    )
