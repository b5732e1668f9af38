"""Methods that ask many questions per row, behind an API: what is said to go out, counted, replayed and shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fake_api import fake_api, last_turn, reply

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.compare import compare
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.models.chat_api import CONSENT, consent
from adjudge.tasks import infer_task
from adjudge.tasks.spec import TaskSpec


@pytest.fixture(autouse=True)
def _no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONSENT, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def plain_reviews(folder: Path) -> TaskSpec:
    """Reviews whose first word is their label."""
    lines = [
        f"{('good', 'bad')[number % 2]} film number {number},{('good', 'bad')[number % 2]}" for number in range(40)
    ]
    (folder / "plain.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return infer_task(folder / "plain.csv", ["text"], "label")


def oracle(body: Any, number: int) -> Any:
    """Prefer what is good, hold everything to be true, and repeat the word before "film" of a row."""
    asked = last_turn(body)
    if candidates := re.search(r"^A: (.*)\nB: (.*)$", asked, re.MULTILINE | re.DOTALL):
        first, second = ("good" in text.partition("film")[0] for text in candidates.groups())
        return reply("A" if first >= second else "B")  # of equal ones always A
    if asked.startswith("Statement: "):
        return reply("Yes")
    if asked.startswith("First: "):
        return reply("<Judgement>unrelated</Judgement>")
    return reply(re.findall(r"(\w+) film", asked)[-1])


def test_comparisons_and_facts_are_counted_and_shown(tmp_path: Path) -> None:
    spec = plain_reviews(tmp_path)
    (tmp_path / "facts.tsv").write_text("good\tpraises\tfilm\nbad\tscorns\tfilm\n")
    plain = ["model=api:small", "evaluation.resamples=100", "data.train_rows=12", "prp.anchors=2", "prp.fit_rows=4"]
    facts = [f"give.triples={tmp_path / 'facts.tsv'}", "give.neighbours=0"]
    with fake_api(oracle) as api:
        config = load_config(overrides=["method=prp", *plain, *facts, f"api.base_url={api.url}"])
        with pytest.raises(ConfigError, match=r"(?s)^48 questions about rows, at most, go to .*Add --send-rows"):
            execute(config, spec, tmp_path / "run")  # 4 training and 8 judged rows, 2 anchors, 2 orders
        with pytest.raises(ConfigError, match=r"questions about rows, at most, go to"):
            execute(config.model_copy(update={"method": "give"}), spec, tmp_path / "run")
        assert api.bodies == []
        with consent():
            table = compare(config, [spec], ["prp", "give"], [0], tmp_path / "all", runner=execute)
        prp, give = table["rows"]
        calls = prp["budget"]["calls"] + prp["judging"]["calls"] + give["judging"]["calls"]
        asked = len(api.bodies)
        assert prp["metrics"]["accuracy"]["value"] == give["metrics"]["accuracy"]["value"] == 1.0
        assert (prp["budget"]["calls"], prp["judging"]["calls"], prp["budget"]["gold_labels"]) == (16, 32, 6)
        # Equal labels conflict: half of the pairs. A statement and a relation per word of praise; two answers per row.
        assert (prp["judging"]["pairs"], prp["judging"]["conflicts"], prp["judging"]["ties"]) == (16, 8, 8)
        assert (give["judging"]["facts_asked"], give["judging"]["calls"]) == (4, 20)
        assert asked == calls
        text = " ".join((tmp_path / "all" / "table.md").read_text().split())
        assert "prp (seed 0): 50% of 16 compared pairs got another answer in the other order; 50% are ties" in text
        assert "give.use=progressive is after GIVE" in text
        for folder in {path.parent for path in (tmp_path / "all").rglob("writer.jsonl")}:
            assert [part for part in compare_runs(folder, rerun(folder)) if not part.equal] == []
        assert len(api.bodies) == asked
