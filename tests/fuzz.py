"""Fuzz answers, files, frames, task files and submissions: only our errors are raised, no answer is guessed.

python tests/fuzz.py --answers 1000000 --files 10000 --frames 20000 --tasks 10000 --submissions 2000 --seed 0

`tests/invariants/test_fuzz.py` runs a small number through the same functions. Needs src and tests on the path.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_frames import fuzz_frames
from hostile_files import MARKS, Made, damaged_submission, damaged_table, damaged_task, damaged_task_rows
from specs import label_task, number_task

from adjudge.config import RewardConfig
from adjudge.errors import AdjudgeError
from adjudge.experiments.predict_file import predict_file
from adjudge.prompts.answers import read_answer
from adjudge.rewards.score import rewards
from adjudge.submission.check import check_zip
from adjudge.system.console import console
from adjudge.tasks import examples_for_prediction, infer_task, load_split, load_task, read_table, spec_to_yaml
from adjudge.tasks.answer_words import FINAL_PUNCTUATION, folded
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Prediction

WORDS = (
    *(
        "A",
        "AB",
        "ABC",
        "Pos",
        "Positive",
        "Positively",
        "Not",
        "Not sure",
        "No",
        "Yes",
        "Option one",
        "Option",
        "Option two",
    ),
    *(
        "да",
        "нет",
        "не",
        "是",
        "不是",
        "نعم",
        "لا",
        "हाँ",
        "नहीं",
        "はい",
        "いいえ",
        "Négatif",
        "Straße",
        "ΣΟΦΟΣ",
        "İyi",
        "👍",
        "👍🏽",
        "👎",
    ),
    *("1", "10", "1.5", "C", "C+", "C++", "-", "?!x", "ﬁn", "Å"),
)
ENDS = (
    "",
    "",
    ".",
    "!!!",
    " .",
    "。",
    "؟",
    "</Judgement>",
    "</Jud",
    "<",
    "\n",
    "\r\nNo",
    "\u037e",
    "</judgement>",
    "</Judgement>\nNo",
)
BATCH = 100


def specs(rng: Random) -> Iterator[TaskSpec]:
    """Yield endless tasks: labels of several scripts, some a prefix of others, and numbers."""
    while True:
        if rng.random() < 0.15:
            low = rng.choice([-4, 0, 1])
            yield number_task(low, low + rng.choice([1, 5, 100]))
            continue
        words = {folded(word): word for word in rng.sample(WORDS, rng.randint(2, 6))}
        if len(words) > 1 and "" not in words:
            yield label_task(*words.values())


def answer(rng: Random, spec: TaskSpec) -> str:
    """Return a response: a word of the task or nearly one, with marks around it."""
    words = spec.words or ("3", "0.5", "-1", "1e3", "007", "٣", "3,5", ".5", "5.0000001", "9" * 400, "inf", "1_0")
    text = rng.choice(words)
    if rng.random() < 0.2:
        text = rng.choice([str.upper, str.lower, str.title, str.casefold, str.swapcase])(text)
    if rng.random() < 0.1:
        text = unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)
    if rng.random() < 0.3:
        index = rng.randint(0, len(text))
        text = text[:index] + rng.choice([*MARKS, *words, chr(rng.randrange(0x110000))]) + text[index:]
    if rng.random() < 0.1 and text:
        index = rng.randrange(len(text))
        text = text[:index] + text[index + 1 :]
    return (
        rng.choice(("", "", "", " ", "\t", *MARKS)) + text + "".join(rng.choice(ENDS) for _ in range(rng.randint(0, 3)))
    )


def could_be(text: str, spec: TaskSpec, stop: str) -> set[str | float]:
    """Return every answer a response could mean, from patterns over folded text, without the parser."""
    if stop == "tag" and "</Judgement>" not in text:
        return set()
    body = (re.split(r"[\r\n]", text)[0] if stop == "line" else text).split("</Judgement>")[0]
    bodies = [
        body,
        re.sub(r"(?:<|</|</J|</Ju|</Jud|</Judg|</Judge|</Judgem|</Judgeme|</Judgemen|</Judgement)\Z", "", body),
    ]
    if spec.number is not None:
        tail = rf"[\s{re.escape(FINAL_PUNCTUATION)}\u037e]*"
        numbers = [re.fullmatch(rf"\s*([+-]?[0-9]+(?:\.[0-9]+)?){tail}", each) for each in bodies[1:]]
        return {
            float(match[1]) for match in numbers if match and spec.number.low <= float(match[1]) <= spec.number.high
        }
    possible: set[str | float] = set()
    for word in spec.words:
        parts = _plain(word).rstrip(FINAL_PUNCTUATION + " ").split()
        pattern = r"\s*" + r"\s+".join(map(re.escape, parts)) + rf"[\s{re.escape(FINAL_PUNCTUATION)}]*"
        possible |= {word for each in bodies if re.fullmatch(pattern, _plain(each))}
    return possible


def _plain(text: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def fuzz_answers(count: int, rng: Random, report: Callable[[int], None] = lambda done: None) -> Counter[str]:
    """Read generated answers and count the outcomes. Fails when one is guessed, lost or not rewarded."""
    counts: Counter[str] = Counter()
    made = specs(rng)
    for begin in range(0, count, BATCH):
        spec, stop = next(made), rng.choice(("line", "tag"))
        texts = [answer(rng, spec) for _ in range(min(BATCH, count - begin))]
        judgements = [read_answer(text, spec, stop) for text in texts]
        for text, judgement in zip(texts, judgements, strict=True):
            possible = could_be(text, spec, stop)
            assert judgement.text == text
            assert judgement.value is None or judgement.value in possible, (text, stop, spec.words, judgement.value)
            assert judgement.value is not None or len(possible) != 1, (text, stop, spec.words, possible)
            counts["number" if spec.is_number else "label", judgement.value is not None] += 1
        gold = spec.words[0] if spec.words else spec.number.low
        scores = rewards(judgements, [gold] * len(texts), spec, RewardConfig())
        assert len(scores) == len(texts) and all(map(math.isfinite, scores))
        report(begin + len(texts))
    names = {True: "read", False: "unreadable"}
    return Counter({f"{kind}, {names[readable]}": number for (kind, readable), number in counts.items()})


class Parrot:
    """A judge that answers every row with the first label."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def judge(self, examples, **_):
        value = self.spec.words[0] if self.spec.words else self.spec.number.low
        share = {word: 1 / len(self.spec.words) for word in self.spec.words}
        return [Prediction.of(example, str(value), value, share) for example in examples]


def load_table_file(path: Path, rng: Random) -> str:
    """Read a table as a user would: infer a task, load both splits, judge the rows and write them."""
    columns, rows = read_table(path)
    assert all(list(row) == columns for row in rows)
    spec = infer_task(path, ["text"], "label")
    loaded = [example for split in ("train", "dev") for example in load_split(spec, split)]
    _check(spec, loaded)
    out = path.with_name(f"judged{rng.choice(['.csv', '.tsv', '.jsonl', '.parquet'])}")
    predict_file(Parrot(spec), spec, path, out)
    again, written = read_table(out)
    assert again[: len(columns)] == columns and len(written) == len(rows)
    if out.suffix in (".csv", ".tsv") and not path.name.endswith((".jsonl", ".jsonl.gz")):
        assert [[row[column] for column in columns] for row in written] == [list(row.values()) for row in rows]
    return "loaded"


def load_task_rows(name: str, folder: Path) -> str:
    """Load a damaged file of an official task."""
    spec = load_task(name)
    examples = load_split(spec, "dev", folder)
    _check(spec, examples)
    return "loaded"


def _check(spec: TaskSpec, examples: list) -> None:
    """Check the promises about loaded rows."""
    assert len({example.id for example in examples}) == len(examples) or spec.source.hook is not None
    for example in examples:
        assert all(isinstance(text, str) for text in example.fields.values())
        assert example.gold in spec.words if spec.words else spec.number.low <= example.gold <= spec.number.high
    examples_for_prediction(
        spec, [dict(example.fields) for example in examples if all(map(str.strip, example.fields.values()))]
    )


def load_task_file(path: Path) -> str:
    """Load a damaged task file, write a row out, and write the file again."""
    spec = load_task(path)
    compiled(spec.template, tuple(spec.fields)).render(dict.fromkeys(spec.fields, "{{ text }} \x00 </Judgement>"))
    again = path.with_name("again.yaml")
    again.write_text(spec_to_yaml(spec), encoding="utf-8")
    assert load_task(again) == spec
    return "loaded"


def fuzz_files(
    count: int, rng: Random, folder: Path, report: Callable[[int], None] = lambda done: None
) -> Counter[str]:
    """Load generated tables and files of the official layouts; count the outcomes by kind."""
    counts: Counter[str] = Counter()
    for number in range(count):
        if rng.random() < 0.6:
            made = damaged_table(rng, folder)
            counts[f"{made.kind}: {_outcome(made, lambda made=made: load_table_file(made.path, rng))}"] += 1
        else:
            made = damaged_task_rows(rng, folder)
            counts[f"{made.kind}: {_outcome(made, lambda made=made: load_task_rows(made.kind, folder))}"] += 1
            made.path.unlink()
        report(number + 1)
    return counts


def fuzz_tasks(
    count: int, rng: Random, folder: Path, report: Callable[[int], None] = lambda done: None
) -> Counter[str]:
    """Load generated task files and count the outcomes."""
    counts: Counter[str] = Counter()
    for number in range(count):
        made = damaged_task(rng, folder)
        counts[_outcome(made, lambda made=made: load_task_file(made.path))] += 1
        report(number + 1)
    return counts


def fuzz_submissions(
    count: int, rng: Random, folder: Path, report: Callable[[int], None] = lambda done: None
) -> Counter[str]:
    """Check generated submissions and count the outcomes."""
    counts: Counter[str] = Counter()
    for number in range(count):
        made = damaged_submission(rng, folder)
        with made.path.open("rb") as stream:
            problems = check_zip(stream, "a.zip")
        assert all(str(problem).isprintable() for problem in problems)
        counts["with problems" if problems else "right"] += 1
        report(number + 1)
    return counts


def _outcome(made: Made, load: Callable[[], str]) -> str:
    """Return ``loaded`` or the name of our error; raise any other error again, with a copy of the file."""
    try:
        return load()
    except AdjudgeError as error:
        assert str(error), made
        return type(error).__name__
    except Exception as error:
        keep = Path(tempfile.mkdtemp(prefix="fuzz-")) / made.path.name
        keep.write_bytes(made.path.read_bytes())
        raise AssertionError(f"{type(error).__name__} by {keep} ({made.kind}): {error}") from error


def main() -> None:
    """Run the requested numbers of cases and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("answers", "files", "frames", "tasks", "submissions", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    options = parser.parse_args()
    console.quiet = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, run in {
            "answers": fuzz_answers,
            "files": lambda *args: fuzz_files(*args[:2], folder, *args[2:]),
            "frames": fuzz_frames,
            "tasks": lambda *args: fuzz_tasks(*args[:2], folder, *args[2:]),
            "submissions": lambda *args: fuzz_submissions(*args[:2], folder, *args[2:]),
        }.items():
            count, began = getattr(options, name), time.monotonic()
            every = max(BATCH, count // 10)
            if not count:
                continue

            def report(done: int, name: str = name, every: int = every) -> None:
                if done % every == 0:
                    print(f"  {name}: {done:,}", file=sys.stderr, flush=True)

            counts = run(count, Random(options.seed), report)
            print(f"{count:,} {name}, seed {options.seed}, {time.monotonic() - began:.0f} s")
            for outcome, number in sorted(counts.items()):
                print(f"  {number:9,}  {outcome}")


if __name__ == "__main__":
    main()
