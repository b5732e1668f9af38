"""Test the benchmarks: the specification, both sides, interrupts, counted operations and the tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from adjudge.errors import ConfigError  # noqa: E402
from benchmarks import growth, ours, product_rate, run, setting, table  # noqa: E402
from benchmarks.peers import common, environments  # noqa: E402

TASK = """
name: my/tone
title: Tone
fields: {text: message}
instruction: Judge the sentiment of the sentence.
template: 'Sentence: {{ text }}'
label: tone
labels: {p: Positive, n: Negative}
metrics: [accuracy]
source: {table: {train: rows.csv, dev: rows.csv}}
"""
ROWS = [
    ("a warm and funny film", "p"),
    ("a dull and slow film", "n"),
    ("badly acted", "n"),
    ("a charming surprise", "p"),
]


@pytest.fixture
def options(tmp_path, tiny_llama):
    (tmp_path / "tone.yaml").write_text(TASK, encoding="utf-8")
    lines = ["message,tone", *(f"{text},{label}" for text, label in ROWS)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = [
        "--task",
        str(tmp_path / "tone.yaml"),
        "--model",
        str(tiny_llama),
        "--batch-size",
        "2",
        "--mini-batch-size",
        "1",
    ]
    given += [
        "--update-epochs",
        "2",
        "--threads",
        "1",
        "--dtype",
        "float32",
        "--out",
        str(tmp_path / "out"),
        "--rounds",
        "2",
    ]
    return run.parse(given)


@pytest.fixture
def spec(options):
    return setting.prepare(options)[0]


def read(spec, folder: Path, what: str = "ppo") -> tuple[dict, common.Spec]:
    """The specification as our side gets it: through a file."""
    path = folder / "SPEC.json"
    path.write_text(json.dumps(setting.for_pair(spec, what)), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8")), common.Spec.read(str(path))


# --- the specification ---


def test_a_specification_is_one_that_the_peers_take(spec, tmp_path):
    _, taken = read(spec, tmp_path)
    assert taken.ignored == ["ours"]
    assert sorted(taken.golds) == ["Negative", "Negative", "Positive", "Positive"]
    assert (taken.batch_size, taken.mini_batch_size, taken.update_epochs) == (2, 1, 2)
    assert taken.lora["targets"] and "lm_head" not in taken.lora["targets"]


def test_prompts_are_of_the_papers_form_and_their_ids_say_the_same(spec, options):
    from adjudge.models.sources.loading import load_tokenizer

    tokenizer = load_tokenizer(options.model, options.model, {})
    for prompt, ids in zip(spec["prompts"], spec["prompt_ids"], strict=True):
        assert prompt.startswith("System_prompt:") and prompt.endswith("Assistant:\n<Judgement>")
        assert tokenizer.decode(ids).removeprefix("<|im_start|>") == prompt
    assert {tokenizer.decode(ids) for ids in spec["answer_ids"]} == {"Positive<|im_end|>", "Negative<|im_end|>"}


def test_evaluation_generates_as_many_tokens_at_most_as_our_answers_have(spec):
    longest = max(map(len, spec["answer_ids"]))
    assert setting.for_pair(spec, "evaluate")["max_new_tokens"] == longest
    assert setting.for_pair(spec, "ppo")["max_new_tokens"] == 32


def test_our_settings_follow_the_specification_and_the_users_own_come_last(spec):
    config = setting.our_config(spec)
    assert config.ppo.stop_kl is None and config.ppo.update_epochs == 2 and config.prompt.style == "paper"
    assert config.ppo.optimizer.lr == config.sft.optimizer.lr == spec["lr"] == 9e-6
    # The peers answer once and have a critic, and no part of their PPO is SFT.
    assert (config.ppo.warm_start, config.ppo.samples, config.ppo.values, config.ppo.epochs) == (0.0, 1, "critic", 1)
    spec["ours"]["settings"] = ["ppo.mini_batch_size=2"]
    assert setting.our_config(spec).ppo.mini_batch_size == 2


def test_a_batch_that_is_no_multiple_of_the_mini_batch_is_refused(options):
    options.mini_batch_size = 3
    with pytest.raises(ConfigError, match="not a multiple"):
        setting.prepare(options)


def test_an_unknown_pair_names_the_nearest():
    with pytest.raises(ConfigError, match=r"ppo-0\.11"):
        setting.parse_pairs("ppo-0.1")


# --- our side ---


@pytest.mark.parametrize(("what", "rows"), [("ppo", 2), ("sft", 2), ("evaluate", setting.EVALUATION_BATCH)])
def test_our_side_answers_with_what_a_peer_answers_with(what, rows, spec, tmp_path):
    raw, taken = read(spec, tmp_path, what)
    meter = common.Meter(taken)
    assert ours.MEASURES[what](raw, taken, meter) == rows
    result = meter.result(rows)
    assert len(result["seconds"]) == len(result["warmup_seconds"]) == 1
    assert result["prompt_tokens_per_row"] == pytest.approx(sum(map(len, taken.prompt_ids)) / 4)
    assert 0 < result["response_tokens_per_row"] <= max(map(len, taken.answer_ids))
    if what == "ppo":
        assert set(result["stages"]) == {"sample", "reference", "update"}


def test_our_side_refuses_prompts_that_are_not_its_own(spec, tmp_path):
    spec["prompt_ids"][1] = spec["prompt_ids"][1][:-1]
    raw, taken = read(spec, tmp_path)
    with pytest.raises(ValueError, match="prompt differs"):
        ours.Side(raw, taken, adapter=False)


def test_our_side_writes_down_what_it_dies_of(spec, tmp_path):
    spec["ours"]["settings"] = ["ppo.optimzer.lr=1"]
    read(spec, tmp_path)
    command = [
        sys.executable,
        "-m",
        "benchmarks.ours",
        str(tmp_path / "SPEC.json"),
        str(tmp_path / "R.json"),
        "--what",
        "ppo",
    ]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 1
    assert "Did you mean" in json.loads((tmp_path / "R.json").read_text())["error"]


# --- the driver ---


def result(seconds: float, memory: float = 1.0, rows: int = 2, **more) -> dict:
    tokens = {"prompt_tokens_per_row": 100.0, "response_tokens_per_row": 2.0}
    return {"seconds": [seconds], "rows_per_batch": rows, "peak_gib": memory, "stages": {}, **tokens, **more}


class Runner:
    """Stands in for processes: writes a result, or does what `does` says, and remembers what was run."""

    def __init__(self, does=None) -> None:
        self.ran, self.variables, self.does = (
            [],
            [],
            does or (lambda title, path: path.write_text(json.dumps(result(1.0)))),
        )

    def __call__(self, command, variables, log, title) -> int:
        self.ran.append(title)
        self.variables.append(variables)
        log.write_text("first line\nlast line\n")
        path = Path(next(word for word in command if word.endswith(".part")))
        self.does(title, path)
        return 0 if path.exists() else 1


def go(options, spec, runner, pairs=("sft",)):
    options.out.mkdir(exist_ok=True)
    return run.run_jobs(run.jobs_of(pairs, options.rounds, options.out), spec, options, runner)


def test_sides_alternate_under_the_same_variables(options, spec):
    runner = Runner()
    found = go(options, spec, runner)
    assert runner.ran == [f"sft round {number}: {side}" for number in (1, 2) for side in ("trl 1.16 SFT", "adjudge")]
    assert all(one == runner.variables[0] for one in runner.variables) and runner.variables[0]["OMP_NUM_THREADS"] == "1"
    assert [sorted(one) for one in found["sft"]] == [["ours", "peer"]] * 2


def test_an_interrupt_loses_only_the_process_under_way(options, spec):
    def stop(title, path):
        if title == "sft round 2: trl 1.16 SFT":
            raise KeyboardInterrupt
        path.write_text(json.dumps(result(1.0)))

    with pytest.raises(KeyboardInterrupt):
        go(options, spec, Runner(stop))
    again = Runner()
    go(options, spec, again)
    assert again.ran == ["sft round 2: trl 1.16 SFT", "sft round 2: adjudge"]
    last = Runner()
    assert len(go(options, spec, last)["sft"]) == 2 and last.ran == []
    options.fresh = True
    go(options, spec, last)
    assert len(last.ran) == 4


def test_changed_code_measures_a_round_anew_and_peers_can_be_kept(options, spec, monkeypatch):
    go(options, spec, Runner())
    was = run.code_of
    monkeypatch.setattr(run, "code_of", lambda pair, side: was(pair, side) + ("new" if side == "ours" else ""))
    options.keep_peers, few = True, Runner()
    go(options, spec, few)
    assert few.ran == ["sft round 1: adjudge", "sft round 2: adjudge"]
    monkeypatch.setattr(run, "code_of", lambda pair, side: was(pair, side) + ("newer" if side == "ours" else ""))
    options.keep_peers, all_of_them = False, Runner()
    go(options, spec, all_of_them)
    assert len(all_of_them.ran) == 4


def test_a_changed_specification_is_measured_anew(options, spec):
    go(options, spec, Runner())
    runner = Runner()
    go(options, {**spec, "lr": 1e-5}, runner)
    assert len(runner.ran) == 4


@pytest.mark.parametrize("damage", ["", "{", '{"key": {}}', '{"result": {"error": "x"}}'])
def test_a_damaged_or_failed_result_is_measured_again(options, spec, damage):
    go(options, spec, Runner())
    (options.out / "pairs" / "sft" / "round-1-ours.json").write_text(damage)
    runner = Runner()
    go(options, spec, runner)
    assert runner.ran == ["sft round 1: adjudge"]


def test_a_process_that_leaves_no_result_says_its_last_lines(options, spec):
    found = go(options, spec, Runner(lambda title, path: None))
    assert "last line" in found["sft"][0]["peer"]["error"]
    assert run.say(found["sft"][0]["peer"]).startswith("failed: ")


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert run.run_process(command, {}, tmp_path / "log", "sleeper", limit_s=0.3) == 124
    assert "stopped after" in (tmp_path / "log").read_text()


def test_a_missing_environment_is_said_with_how_to_make_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    missing = run.missing_pairs(["sft", "ppo-0.11"])
    assert "environments.py trl-1.16" in missing["sft"] and "environments.py trl-0.11" in missing["ppo-0.11"]
    assert run.main(["--pairs", "sft", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "sft: skipped" in said.out and "--sides ours" in said.err


def test_a_command_names_no_folder_of_this_machine():
    given = [
        "--data-dir",
        "/home/a/glue",
        "--model=/m/x",
        "--out",
        "runs/b",
        "--model",
        "smollm2-135m",
        "--out",
        "/tmp/o",
    ]
    assert setting.shareable(given) == "--data-dir DIR --model=MODEL --out runs/b --model smollm2-135m --out OUT"


# --- the share of the product rate ---


def test_needed_tokens_count_the_prefix_once_and_no_padding():
    prompts, responses = [[1, 2, 3, 4, 5], [1, 2, 3, 6]], [[7, 8], [9]]
    # prefix 3, rests 2 and 1, and of the answers what is fed: 1 and 0
    assert product_rate.needed_tokens(prompts, responses) == product_rate.Tokens(3 + 2 + 1 + 1, 3)


def test_operations_are_those_of_the_matrices():
    shapes = Counter({(4, 6): 2, (6, 4): 1})
    tokens = product_rate.Tokens(10, 3)
    once = product_rate.operations(shapes, (4, 100), tokens, 1)
    assert once == 2 * (3 * 24 * 10 + 400 * 3)
    assert product_rate.operations(shapes, (4, 100), tokens, 2) == 2 * once


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2", "tiny_mpt"])
def test_shapes_are_those_of_the_layers_without_the_head(family, request):
    folder = request.getfixturevalue(family)
    shapes, head = product_rate.linear_shapes(setting.empty_model(folder))
    assert head == (32, 400)
    model = AutoModelForCausalLM.from_pretrained(folder)
    matrices = [
        p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "emb" not in name and "wte" not in name
    ]
    matrices = matrices[:-1] if not model.config.tie_word_embeddings else matrices
    assert sum(a * b * count for (a, b), count in shapes.items()) == sum(matrices)


def test_an_updates_tokens_are_those_of_its_mini_batches():
    prompts, responses = [[1, 2, place, *range(place)] for place in range(3, 7)], [[1, 2]] * 4
    config = SimpleNamespace(update_epochs=2, mini_batch_size=2)
    order = torch.Generator().manual_seed(1)
    total, passes = product_rate.update_tokens(prompts, responses, config, order)
    rests = sum(len(prompt) - 2 + 1 for prompt in prompts)
    assert passes == 4 and total == product_rate.Tokens(2 * (2 * 2 + rests), 2 * 8)


def test_the_product_rate_is_a_rate():
    shapes, head, tokens = Counter({(16, 32): 2}), (16, 64), product_rate.Tokens(8, 0)
    assert product_rate.product_rate(shapes, head, tokens, torch.float32, torch.device("cpu")) > 0


def test_shares_are_measured_on_a_specification(spec, tmp_path):
    raw, _ = read(spec, tmp_path)
    rows = product_rate.measure(raw, str(tmp_path / "SPEC.json"), repeats=1)
    assert [row["goal"] for row in rows] == [0.6, None, 0.4]
    assert all(row["seconds"] > 0 and row["operations"] > 0 and row["product_rate"] > 0 for row in rows)


def test_a_kept_prefix_is_not_counted_as_computed(spec, tmp_path):
    raw, taken = read(spec, tmp_path)
    policy = ours.Side(raw, taken, adapter=True).judge.task.policy.eval()

    def forward():
        policy.prefill(taken.prompt_ids)

    first = product_rate.tokens_computed(policy, forward)
    assert product_rate.tokens_computed(policy, forward) < first
    policy.forget_prefix(reference=True)
    assert product_rate.tokens_computed(policy, forward) == first


# --- growth ---


@pytest.mark.parametrize(("what", "size"), [("batch", 4), ("rows", 4), ("memory", 4)])
def test_a_size_is_measured_with_the_columns_of_its_table(what, size, options, tmp_path):
    options.data_dir = None
    spec = growth.specification(what, size, options)
    raw, taken = read(spec, tmp_path)
    row = growth.MEASURES[what](raw, taken, size)
    assert list(row) == growth.COLUMNS[what] and row[growth.COLUMNS[what][0]] == size
    if what == "batch":
        assert 0 < row["one prefix pass"] < row["seconds"]


# --- the table ---


def record(rounds, **more) -> dict:
    machine = {"device": "A CPU", "cores": 2, "system": "Linux", "versions": {"python": "3.11", "torch": "2.13"}}
    settings = {
        "task": "t",
        "model": "m",
        "batch_size": 16,
        "mini_batch_size": 8,
        "update_epochs": 4,
        "batches": 1,
        "samples": 4,
    }
    settings |= {"threads": 2, "seed": 0, "dtype": "float32", "set": []}
    how = {"machine": machine, "settings": settings, "date": "2026-01-02", "command": "python -m benchmarks.run"}
    return {"pairs": {name: {**how, "rounds": found} for name, found in rounds.items()}, "missing": {}, **more, **how}


def rendered(folder: Path, name: str, content: dict) -> str:
    (folder / f"{name}.json").write_text(json.dumps(content))
    return table.render(folder)


def test_the_table_holds_the_median_of_the_rounds_ratios(tmp_path):
    rounds = [
        {"peer": result(peer, 4.0), "ours": result(own, 1.0)} for peer, own in ((10.0, 1.0), (20.0, 1.0), (33.0, 3.0))
    ]
    text = rendered(tmp_path, "results", record({"ppo-0.11": rounds, "grpo": rounds}))
    row = next(line for line in text.splitlines() if line.startswith("| trl 0.11.4 PPO"))
    assert "**11.0** (10.0, 20.0, 11.0)" in row and "≥ 10" in row and "1.00 / 4.00" in row and "0.25" in row
    assert "answers each prompt 4 times" in text and "A CPU, 2 cores" in text and "2026-01-02" in text


def test_the_table_says_what_failed_and_what_is_missing(tmp_path):
    rounds = [{"peer": {"error": "MemoryError: no"}, "ours": result(1.0)}, {"ours": result(1.0)}]
    text = rendered(tmp_path, "results", record({"sft": rounds}, missing={"rloo": "not made; make it with: x"}))
    assert "round 1, peer failed: MemoryError: no" in text and "rloo was not measured: not made" in text
    assert "| trl 1.16 SFT | 2 rows, 204 tokens | – | – |" in text


def test_the_gpus_memory_is_what_counts_where_there_is_one(tmp_path):
    rounds = [{"peer": result(2.0, 50.0, cuda_peak_gib=8.0), "ours": result(1.0, 50.0, cuda_peak_gib=2.0)}]
    assert "2.00 / 8.00" in rendered(tmp_path, "results", record({"sft": rounds}))


def test_shares_and_growth_have_tables(tmp_path):
    share = {"name": "forward", "tokens": 400, "operations": 10**11, "seconds": 1.0, "product_rate": 2e11, "goal": 0.6}
    assert "| 50 % | ≥ 60 % |" in rendered(tmp_path, "product_rate", {**record({}), "rows": [share]})
    rows = [{"rows": 64, "seconds": 2.0, "seconds per row": 0.031}, {"rows": 128, "error": "exit status 1"}]
    part = {"name": "rows", "title": "Linear.", "columns": growth.COLUMNS["rows"], "rows": rows}
    text = rendered(tmp_path, "growth", {**record({}), "parts": [part]})
    assert "| 64 | 2 | 0.031 |" in text and "| 128 | failed: exit status 1 | – |" in text


def test_tables_go_between_the_markers_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_between(page, "new")
    table.write_between(page, "newer")
    assert page.read_text() == f"before\n{table.BEGIN}\nnewer\n{table.END}\nafter\n"


@pytest.mark.parametrize("text", ["none", f"{table.END}\n{table.BEGIN}", f"{table.BEGIN}{table.BEGIN}{table.END}"])
def test_a_page_without_its_markers_is_left_as_it_is(tmp_path, text, capsys):
    page = tmp_path / "page.md"
    page.write_text(text)
    rendered(tmp_path, "results", record({"sft": []}))
    assert table.main(["--out", str(tmp_path), "--write", str(page)]) == 1
    assert page.read_text() == text and "once each" in capsys.readouterr().err


def test_a_folder_without_results_says_how_to_measure(tmp_path, capsys):
    assert table.main(["--out", str(tmp_path)]) == 1
    assert "python -m benchmarks.run" in capsys.readouterr().err


def test_the_page_has_its_markers():
    text = (ROOT / "docs" / "results" / "speed.md").read_text(encoding="utf-8")
    assert text.count(table.BEGIN) == text.count(table.END) == 1
