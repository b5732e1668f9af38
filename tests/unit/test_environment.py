"""Test environment.json: it records what results depend on, and which differences change them."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_method import by_first_word, install, reviews, write_reviews
from hub_cache import OLD, cache_model, no_network
from huggingface_hub import constants

from adjudge.config import RuntimeConfig, load_config
from adjudge.errors import ModelError
from adjudge.experiments.evaluate import evaluate_run
from adjudge.experiments.execute import execute
from adjudge.models.sources.device import explain_dtype
from adjudge.runs.environment import COMMAND, command, differences, environment, model_identity
from adjudge.runs.folder import read_json
from adjudge.tasks import infer_task, load_split, load_task
from adjudge.tasks.reading.sources import split_files

ROOT = Path(__file__).parents[2]


def settings(*overrides):
    return load_config(overrides=["method=sft", "evaluation.resamples=100", *overrides])


@pytest.fixture
def found(tiny_llama, tmp_path):
    """The environment of a run that was never begun."""
    return environment(settings(f"model={tiny_llama}", "runtime.threads=1"), "model", [reviews(tmp_path)], "ab" * 32)


def test_a_run_leaves_it_behind_before_it_trains(tmp_path, monkeypatch):
    seen = []
    install(
        monkeypatch, "sft", by_first_word, before=lambda run: seen.append(read_json(run.folder / "environment.json"))
    )
    spec = reviews(tmp_path)
    execute(settings(), spec, tmp_path / "run")
    assert seen == [read_json(tmp_path / "run/environment.json")]
    assert seen[0]["data"]["rows_sha256"] == read_json(tmp_path / "run/training.json")["rows_sha256"]
    table = tmp_path / "reviews.csv"
    assert seen[0]["data"]["tasks"] == {
        spec.name: {"files": {str(table): hashlib.sha256(table.read_bytes()).hexdigest()}}
    }
    assert seen[0]["model"] == {"name": "smollm2-135m", "sha256": {}}
    evaluate_run(tmp_path / "run", split="train")
    assert (tmp_path / "run/evaluations/reviews-train-greedy/environment.json").is_file()


def test_a_run_over_several_tasks_names_the_rows_of_each(tmp_path, monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    spec = reviews(tmp_path)
    execute(settings(), [spec, spec.model_copy(update={"name": "more"})], tmp_path / "run")
    data = read_json(tmp_path / "run/environment.json")["data"]
    assert list(data["tasks"]) == [spec.name, "more"]
    assert data["rows_sha256"] == read_json(tmp_path / "run/training.json")["rows_sha256"]


def test_versions_and_machine_are_those_of_this_process(found):
    assert found["libraries"]["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (found["threads"], found["device"]["name"].partition(":")[0]) == (
        1,
        "cuda" if torch.cuda.is_available() else "cpu",
    )
    assert found["dtype"]["name"] in ("float32", "bfloat16")
    assert found["cpu"]["name"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no git checkout")
def test_the_commit_of_a_source_tree_is_named(found):
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found["adjudge"]["commit"] == head
    assert found["adjudge"]["dirty"] in (True, False)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_copy_outside_a_source_tree_has_no_commit_and_the_same_hash(found, tmp_path):
    """A wheel installs such a copy. The source tree of another project around it does not count."""
    for arguments in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    shutil.copytree(ROOT / "src/adjudge", tmp_path / "lib/python/site-packages/adjudge")
    code = (
        "from adjudge.runs import environment as e; import json; "
        "print(json.dumps([e.source_commit(), e._source_sha256()]))"
    )
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "lib/python/site-packages")}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == [{"commit": None, "dirty": None}, found["adjudge"]["sha256"]]


def test_a_model_in_a_folder_is_known_by_its_files(found, tiny_llama, tmp_path):
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(found["model"]["sha256"])
    changed = shutil.copytree(tiny_llama, tmp_path / "changed")
    with (changed / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    other = model_identity(str(changed))["sha256"]
    assert {name for name in other if other[name] != found["model"]["sha256"][name]} == {"model.safetensors"}


def test_a_model_from_the_hub_is_known_by_its_commit(tiny_llama, tmp_path, monkeypatch):
    cache_model(tmp_path / "hub", "a/b", tiny_llama, OLD, "main")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    no_network(monkeypatch)
    assert model_identity("a/b") == {"name": "a/b", "commit": OLD}
    with pytest.raises(ModelError, match="hub cannot be reached"):
        model_identity("a/c")


def test_where_ppo_starts_is_part_of_it(tiny_llama, tmp_path):
    start = tmp_path / "start/adapter"
    start.mkdir(parents=True)
    (start / "adapter_config.json").write_text("{}")
    spec, config = (
        reviews(tmp_path),
        load_config(values={"method": "ppo", "init": str(start.parent), "model": str(tiny_llama)}),
    )
    first = environment(config, "model", [spec], "")
    (start / "adapter_config.json").write_text("{ }")
    (said,) = differences(first, environment(config, "model", [spec], ""))
    assert said.startswith("init.sha256.adapter_config.json ")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("libraries", "torch"), "1.0", "libraries.torch {} → 1.0"),
        (("libraries", "more"), "1", "libraries.more none → 1"),
        (("libc",), "musl 1.2", "libc {} → musl 1.2"),
        (("threads",), 7, "threads {} → 7"),
        (("device", "name"), "cuda:1", "device.name {} → cuda:1"),
        (("dtype", "name"), "float16", "dtype.name {} → float16"),
        (("cpu", "flags"), ["amx_bf16"], "cpu.flags {} → amx_bf16"),
        (("variables", "MKL_CBWR"), "COMPATIBLE", "variables.MKL_CBWR none → COMPATIBLE"),
        (("adjudge", "sha256"), "0" * 64, "adjudge.sha256 {} → 000000000000…"),
        (("model", "sha256", "config.json"), "0" * 64, "model.sha256.config.json {} → 000000000000…"),
        (("started",), "yesterday", None),
        (("command",), "adjudge", None),
        (("adjudge", "commit"), "0" * 40, None),
        (("dtype", "why"), "it rains", None),
        (("model", "name"), "elsewhere", None),
        (("cpu", "cores"), 99, None),
        (("platform",), "another kernel", None),
    ],
)
def test_what_matters_is_said_and_nothing_else(place, value, said, found):
    other = copy.deepcopy(found)
    *groups, last = place
    inner = other
    for group in groups:
        inner = inner[group]
    before = inner.get(last)
    inner[last] = value
    shown = (
        ", ".join(before) or "none" if isinstance(before, list) else f"{before[:12]}…" if "sha256" in place else before
    )
    assert differences(found, other) == ([] if said is None else [said.format(shown)])
    assert differences(found, found) == []


def test_an_encoder_is_always_in_float32(tiny_llama, tmp_path):
    config = load_config(values={"method": "encoder", "encoder.model": str(tiny_llama), "runtime.dtype": "bfloat16"})
    assert environment(config, "encoder.model", [reviews(tmp_path)], "")["dtype"]["name"] == "float32"


@pytest.mark.parametrize(
    ("dtype", "kind", "fast", "why"),
    [
        ("float16", "cpu", True, "runtime.dtype=float16"),
        ("auto", "cpu", True, "multiplies bfloat16 matrices in hardware"),
        ("auto", "cpu", False, "neither AMX nor AVX-512 BF16"),
        ("auto", "mps", False, "always on mps"),
        ("auto", "cuda", True, "computes in bfloat16"),
        ("auto", "cuda", False, "does not compute in bfloat16"),
    ],
)
def test_why_a_precision_is_taken_is_said(dtype, kind, fast, why, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast}, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    assert why in explain_dtype(RuntimeConfig(dtype=dtype), torch.device(kind))


def test_the_command_is_the_one_that_was_given(monkeypatch):
    monkeypatch.delenv(COMMAND, raising=False)
    for program, shown in (
        ("/opt/bin/adjudge", "adjudge"),
        ("/lib/adjudge/__main__.py", "adjudge"),
        ("mine.py", "mine.py"),
    ):
        monkeypatch.setattr(sys, "argv", [program, "train", "a b"])
        assert command() == f"{shown} train 'a b'"
    monkeypatch.setenv(COMMAND, "adjudge compare")
    assert command() == "adjudge compare"


def test_the_files_of_a_split_are_those_it_is_read_from(tmp_path, monkeypatch):
    official = tmp_path / "data/glue/RTE"
    official.mkdir(parents=True)
    (official / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n")
    rte = load_task("glue/rte")
    assert split_files(rte, "train", tmp_path / "data") == [official / "train.tsv"]
    assert len(load_split(rte, "train", tmp_path / "data")) == 1
    assert (
        split_files(rte, "dev", tmp_path / "data")
        == split_files(rte, "train", tmp_path)
        == split_files(rte, "train")
        == []
    )
    two = infer_task(write_reviews(tmp_path / "a.csv"), ["text"], "label", None, write_reviews(tmp_path / "b.csv"))
    assert [split_files(two, split)[0].name for split in ("train", "dev")] == ["a.csv", "b.csv"]
    one = infer_task(tmp_path / "a.csv", ["text"], "label")
    assert split_files(one, "dev") == split_files(one, "train") != []
    monkeypatch.setenv("ADJUDGE_CACHE", str(tmp_path / "cache"))
    assert split_files(load_task("vader/news"), "dev") == []


def test_a_finished_run_is_judged_without_the_run_it_started_from(tmp_path, monkeypatch):
    install(monkeypatch, "ppo", by_first_word)
    start = tmp_path / "start/adapter"
    start.mkdir(parents=True)
    (start / "adapter_config.json").write_text("{}")
    execute(settings("method=ppo", f"init={start.parent}"), reviews(tmp_path), tmp_path / "run")
    assert set(read_json(tmp_path / "run/environment.json")["init"]["sha256"]) == {"adapter_config.json"}
    shutil.rmtree(start.parent)
    folder, _ = evaluate_run(tmp_path / "run", split="train")
    assert read_json(folder / "environment.json")["init"] == {"run": str(start.parent), "sha256": {}}
