"""Choose the rows of a few-shot prompt: worked examples, and those that measure its label prior."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from adjudge.config import PromptConfig
from adjudge.errors import ConfigError, DataError, nearest
from adjudge.prompts.explanations import explained_examples
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts without content, as in the experiments of arXiv 2102.09690."""

_SURELY_ENOUGH = 20
"""So many demonstrations have more orders than anyone asks for."""


def choose_demonstrations(
    train: Sequence[Example], spec: TaskSpec, config: PromptConfig, seed: int = 0
) -> list[Example]:
    """Return `config.demonstrations` of the labelled training rows, in their order.

    ``first`` takes the first rows (arXiv 2410.11020 takes the first 5). ``balanced`` takes the labels in turn, each
    label's first rows; in number tasks, rows whose gold answers are spread evenly over the sorted training answers.
    ``random`` draws rows by the seed, and keeps the order of the draw. ``nearest`` returns every labelled row, for each
    judged row to have its own (`adjudge.prompts.nearest`).

    With ``explanations=file`` they are chosen among the examples of that file, in place of the training rows.

    Raises DataError when there are too few labelled rows, or a gold answer is not an answer of the task.
    """
    own_examples = config.explanations == "file"
    rows = [row for row in (explained_examples(spec, config) if own_examples else train) if row.gold is not None]
    count = config.demonstrations
    for row in rows:
        if not spec.is_number and not spec.accepts(row.gold):
            raise DataError(
                f"{row.id}: {row.gold!r} is not an answer word of {spec.name}.{nearest(str(row.gold), spec.words)}"
            )
    if len(rows) < count:
        raise DataError(
            f"{spec.name}: {count} demonstrations were requested, but there are {len(rows)} "
            + ("explained examples. " if own_examples else "labelled training rows. Raise --train-rows, or ")
            + f"{'Lower' if own_examples else 'lower'} prompt.demonstrations."
        )
    if config.demonstration_choice == "first" or count == 0:
        return rows[:count]
    if config.demonstration_choice == "nearest":
        texts = len({text_key(row.fields) for row in rows})
        if texts <= count:  # a judged row that is among them is not shown itself
            raise DataError(
                f"{spec.name}: the {count} nearest demonstrations are chosen among more rows than {count}, and there "
                f"are {texts} labelled training rows of different text. Raise --train-rows, lower "
                "prompt.demonstrations, or use prompt.demonstration_choice=balanced."
            )
        return rows
    if config.demonstration_choice == "random":
        return random.Random(seed).sample(rows, count)
    return _balanced(rows, spec, count)


def _balanced(rows: Sequence[Example], spec: TaskSpec, count: int) -> list[Example]:
    if spec.is_number:
        by_gold = sorted(range(len(rows)), key=lambda index: (float(rows[index].gold or 0.0), index))
        picked = {by_gold[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)}
    else:
        queues: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(rows):
            queues[str(example.gold)].append(index)
        picked = set()
        turns = [queues[word] for word in dict.fromkeys((*spec.words, *queues)) if word in queues]
        while len(picked) < count:
            for queue in turns:
                if queue and len(picked) < count:
                    picked.add(queue.pop(0))
    return [rows[index] for index in sorted(picked)]


def demonstration_orders(config: PromptConfig, seed: int) -> list[tuple[int, ...]]:
    """Return `config.demonstration_orders` different orders of the demonstrations, as indices.

    The first is the order in which they were chosen, the others are drawn by the seed. Raises ConfigError when there
    are not as many.
    """
    count, wanted = config.demonstrations, config.demonstration_orders
    if wanted > math.factorial(min(count, _SURELY_ENOUGH)):
        raise ConfigError(
            f"prompt.demonstration_orders is {wanted}, but {count} demonstrations have only {math.factorial(count)} "
            "orders. Lower it, or raise prompt.demonstrations."
        )
    orders = [tuple(range(count))]
    generator = random.Random(seed)
    while len(orders) < wanted:
        order = tuple(generator.sample(range(count), count))
        if order not in orders:
            orders.append(order)
    return orders


def prior_rows(
    train: Sequence[Example], shown: Sequence[Example], spec: TaskSpec, config: PromptConfig, seed: int
) -> list[Example]:
    """Return the rows which the label prior of `config` is measured on.

    There are none with ``prior=none``, for a number task, or where answers are sets of labels. Training rows are drawn
    by the seed among those that have not the text of a `shown` one, each text once. With ``nearest`` any may be drawn:
    none is shown before itself. Raises DataError when there are none to draw.
    """
    if config.prior == "none" or spec.is_number or spec.several:
        return []
    if config.prior == "content-free":
        return [Example(f"content-free:{text!r}", dict.fromkeys(spec.fields, text)) for text in CONTENT_FREE]
    nearest_shown = config.demonstration_choice == "nearest"
    keys = set() if nearest_shown else {text_key(row.fields) for row in shown}
    others = [row for key, row in {text_key(row.fields): row for row in train}.items() if key not in keys]
    if not others:
        raise DataError(
            f"{spec.name}: prompt.prior=training-rows needs training rows besides the demonstrations, and there are "
            "none. Raise --train-rows, lower prompt.demonstrations, or use prompt.prior=content-free."
        )
    return random.Random(seed).sample(others, min(config.prior_rows, len(others)))
