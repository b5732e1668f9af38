"""Few-shot runs with explanations: few-shot's bits without them; written, kept, repeated, counted, controlled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_api import fake_api, last_turn, reply
from fake_method import reviews

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.models.chat_api import CONSENT, consent
from adjudge.runs.folder import Run
from adjudge.types import Example


@pytest.fixture(autouse=True)
def _no_consent(monkeypatch):
    monkeypatch.delenv(CONSENT, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def config(model, method, *overrides):
    plain = [f"method={method}", f"model={model}", "evaluation.resamples=100", "runtime.dtype=float32"]
    return load_config(
        overrides=[*plain, "prompt.demonstrations=2", "prompt.prior_rows=4", "answer.analysis_tokens=6", *overrides]
    )


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("prior", ["training-rows", "none"])
def test_without_explanations_it_is_few_shot_bit_for_bit(prior, tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    for method in ("few-shot", "nle"):
        settings = [f"prompt.prior={prior}", "prompt.explanations=none"]
        execute(config(tiny_llama, method, *settings), spec, tmp_path / method)
    for name in ("predictions/dev.jsonl", "demonstrations.jsonl"):
        few_shot, nle = (tmp_path / method / name for method in ("few-shot", "nle"))
        assert nle.read_bytes() == few_shot.read_bytes()
    assert not (tmp_path / "nle" / "writer.jsonl").exists()


def test_a_local_model_explains_and_the_run_can_be_repeated(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    execute(config(tiny_llama, "nle"), spec, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    record = json.loads((run.folder / "explanations.json").read_text())
    shown = lines(run.folder / "demonstrations.jsonl")
    assert record["explanations"] == "zero-shot"
    assert record["writer"] == str(tiny_llama)
    assert [row["explanation"] for row in shown] == [each["explanation"] for each in record["written"]]
    budget = run.scores()["budget"]
    assert (budget["calls"], budget["gold_labels"]) == (2, 2)
    assert 0 < budget["generated_tokens"] <= 12
    assert len(lines(run.folder / "writer.jsonl")) == 2
    _, _, judge = load_judge(run.folder)
    rows = [Example(each.id, each.fields) for each in run.predictions("dev")]
    assert [each.text for each in judge.judge(rows)] == [each.text for each in run.predictions("dev")]
    assert "</Analysis>\n<Judgement>" in run.predictions("dev")[0].text
    assert [part for part in compare_runs(run.folder, rerun(run.folder)) if not part.equal] == []


def oracle(body, number):
    """Explain with the row's answer; judge rightly only where the examples' explanations fit their answers."""
    asked = last_turn(body)
    if "The right answer is: " in asked:
        return reply(f"Its first words say {asked.split('The right answer is: ')[1].split()[0]}, plainly.")
    answers = [turn["content"] for turn in body["messages"] if turn["role"] == "assistant"]
    fit = all(f"say {answer.split('<Judgement>')[1].split('<')[0]}, plainly" in answer for answer in answers)
    return reply(f"<Analysis>r</Analysis>\n<Judgement>{asked.split()[1] if fit else 'bad'}</Judgement>")


def test_content_counts_where_the_oracle_reads_it_and_the_control_shows_it(tmp_path):
    spec = reviews(tmp_path)
    with fake_api(oracle) as api:
        settings = [f"api.base_url={api.url}", "prompt.prior=none"]
        with pytest.raises(ConfigError, match="Add --send-rows"):
            execute(config("api:small", "nle", *settings), spec, tmp_path / "refused")
        assert api.bodies == []
        accuracy = {}
        with consent():
            for control in ("none", "another", "empty"):
                settings[2:] = [f"prompt.explanation_control={control}"]
                execute(config("api:small", "nle", *settings), spec, tmp_path / control)
                scores = Run.open(tmp_path / control).scores()
                accuracy[control] = scores["metrics"]["accuracy"]["value"]
                assert scores["budget"]["calls"] == 2
    # the first word of a row is its answer in all but every eighth
    assert accuracy["none"] > 0.8 > 0.6 > accuracy["another"] == accuracy["empty"]


def test_a_writer_of_its_own_explains_for_a_local_model_after_the_files_examples(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    why = tmp_path / "why.yaml"
    why.write_text('examples: [{texts: [bad plot], answer: bad, explanation: "The plot is called bad."}]')
    with fake_api(oracle) as api:
        settings = ["writer.model=api:large", f"api.base_url={api.url}", f"prompt.explanations_file={why}"]
        with pytest.raises(ConfigError, match="api:large writes explanations for nle: requests with training rows go"):
            execute(config(tiny_llama, "nle", *settings), spec, tmp_path / "run")
        with consent():
            execute(config(tiny_llama, "nle", *settings), spec, tmp_path / "run")
        assert [len(body["messages"]) for body in api.bodies] == [3, 3]
        assert api.bodies[0]["messages"][1]["content"] == "The plot is called bad."
        rerun(tmp_path / "run")  # from the log
        assert len(api.bodies) == 2
    assert Run.open(tmp_path / "run").scores()["budget"]["gold_labels"] == 3


def test_it_has_its_place_in_a_comparison_and_controls_are_named_apart(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    every = config(tiny_llama, "few-shot", "prompt.prior=none", "prompt.explanation_control=another")
    table = compare(every, [spec], ["few-shot", "nle"], [0], tmp_path / "all", runner=execute)
    assert [row["method"] for row in table["rows"]] == ["few-shot", "nle"]
    assert table["rows"][1]["budget"]["calls"] == 2
    assert table["apart"] == [
        {
            "setting": "prompt.explanation_control=another",
            "is": "a control: every explanation is that of another example",
        }
    ]
    assert "a control: every explanation" in (tmp_path / "all" / "table.md").read_text()
