"""Choose the training rows that serve as worked examples in a few-shot prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from adjudge.config import PromptConfig
from adjudge.errors import DataError, nearest
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example


def choose_demonstrations(train: Sequence[Example], spec: TaskSpec, config: PromptConfig) -> list[Example]:
    """Return `config.demonstrations` of the labelled training rows, in their order.

    ``first`` takes the first rows (arXiv 2410.11020 takes the first 5). ``balanced`` takes the labels in turn, each
    label's first rows; in number tasks, rows whose gold answers are spread evenly over the sorted training answers.

    Raises DataError when there are too few labelled rows, or a gold answer is not an answer of the task.
    """
    rows = [example for example in train if example.gold is not None]
    count = config.demonstrations
    for row in rows:
        if not spec.is_number and row.gold not in spec.words:
            raise DataError(
                f"{row.id}: {row.gold!r} is not an answer word of {spec.name}.{nearest(str(row.gold), spec.words)}"
            )
    if len(rows) < count:
        raise DataError(
            f"{spec.name}: {count} demonstrations were requested, but there are {len(rows)} labelled training rows. "
            "Raise --train-rows, or lower prompt.demonstrations."
        )
    if config.demonstration_choice == "first" or count == 0:
        return rows[:count]
    if spec.is_number:
        by_gold = sorted(range(len(rows)), key=lambda index: (float(rows[index].gold or 0.0), index))
        picked = {by_gold[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)}
    else:
        queues: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(rows):
            queues[str(example.gold)].append(index)
        picked = set()
        turns = [queues[word] for word in spec.words if word in queues]
        while len(picked) < count:
            for queue in turns:
                if queue and len(picked) < count:
                    picked.add(queue.pop(0))
    return [rows[index] for index in sorted(picked)]
