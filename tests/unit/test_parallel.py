"""Several processes: shares, and what each says; `end_to_end/test_several_processes.py` starts real ones."""

import pytest
import torch
from typer.testing import CliRunner

from adjudge.cli.interrupts import what_next
from adjudge.cli.main import app
from adjudge.errors import ConfigError
from adjudge.system import parallel
from adjudge.system.console import note, warn


@pytest.fixture
def as_rank(monkeypatch):
    def become(rank, size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(size))

    return become


@pytest.mark.parametrize(("count", "size"), [(0, 2), (1, 2), (7, 2), (8, 3), (3, 8)])
def test_shares_are_even_and_cover_every_row_in_order(count, size, as_rank):
    parts = []
    for rank in range(size):
        as_rank(rank, size)
        parts.append(list(range(count))[parallel.share(count)])
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_is_the_identity():
    rows = torch.arange(3.0)
    assert parallel.joined_rows(rows) is rows
    assert parallel.gathered("a") == ["a"]
    assert parallel.of_all_rows([1, 2], list) == [[1, 2]]
    assert parallel.on_first(lambda: 5) == 5
    weight = torch.nn.Parameter(torch.ones(2))
    parallel.sum_gradients([weight])
    assert weight.grad is None


def test_only_the_first_process_prints(as_rank, capsys):
    as_rank(1, 2)
    note("a note")
    warn("a warning")
    assert capsys.readouterr().err == ""


def test_each_process_takes_a_gpu_of_its_own(as_rank, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    as_rank(1, 3)
    assert parallel.own_device("cuda") == "cuda:1"
    assert (parallel.own_device("cpu"), parallel.own_device("cuda:0")) == ("cpu", "cuda:0")
    as_rank(2, 3)
    with pytest.raises(ConfigError, match=r"3 processes on this machine need as many GPUs, and it has 2"):
        parallel.own_device("cuda")


@pytest.mark.parametrize("verb", ["compare", "evaluate"])
def test_other_verbs_are_refused_under_a_launcher(verb, as_rank):
    as_rank(1, 2)
    refused = CliRunner().invoke(app, [verb])
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert f"process 1: error: torchrun and accelerate launch are for `adjudge train`; `adjudge {verb}`" in said
    assert "--jobs N" in said


def test_a_dry_run_is_one_process(as_rank):
    as_rank(0, 2)
    refused = CliRunner().invoke(app, ["train", "sft", "--dry-run"])
    assert "--dry-run measures one process" in " ".join(refused.stderr.split())


def test_a_stopped_run_names_the_launcher(as_rank, tmp_path):
    as_rank(0, 2)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    said = what_next("train", ["/x/adjudge/__main__.py", "train", "sft", "--out", "r"], tmp_path)
    assert said.endswith("torchrun --nproc-per-node 2 -m adjudge train sft --out r --resume")
