"""The doctor on machines that lack something; tests replace the functions that examine the machine."""

import json
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.setup import doctor, torch_library
from adjudge.setup.doctor import examine
from adjudge.setup.torch_library import GPU_FILES
from adjudge.system.hub import connection_problem
from adjudge.tasks import list_tasks
from adjudge.tasks.reading import vader

Usage = namedtuple("Usage", "total used free")
GIB = 2**30


@pytest.fixture(autouse=True)
def well(tmp_path, monkeypatch):
    """A machine without a GPU, with everything fetched, enough disk and memory, and a hub that answers."""
    cache = tmp_path / "cache"
    for name in ("models/smollm2-135m", "models/minilm-l6", "vader"):
        (cache / name).mkdir(parents=True)
    for name in vader.FILES.values():
        (cache / "vader" / name).write_text("")
    monkeypatch.setenv("ADJUDGE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100 * GIB, 50 * GIB, 50 * GIB))
    monkeypatch.setattr(doctor, "memory_gib", lambda: 16.0)
    monkeypatch.setattr(doctor, "available_gib", lambda: 8.0)
    monkeypatch.setattr(doctor, "connection_problem", lambda _endpoint, ask_proxy: None)
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "no-driver")
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return cache


def findings(data_dir=None):
    return {finding.name: finding for finding in examine(data_dir).machine}


def plans(data_dir=None):
    return {plan.name: (plan.runs, plan.message) for plan in examine(data_dir).plans}


def missing():
    return [finding.name for finding in examine().machine if finding.state == "missing"]


def test_a_machine_that_lacks_nothing(well):
    examination = examine()
    assert examination.healthy
    assert {finding.state for finding in examination.machine} == {"ok"}
    values = {finding.name: finding.values for finding in examination.machine}
    assert values["torch"]["version"] == metadata.version("torch")
    assert values["memory"] == {"total_gib": 16.0, "available_gib": 8.0}
    assert values["smollm2-135m"]["folder"] == str(well / "models/smollm2-135m")
    assert values["dtype"]["why"]
    assert all(runs for name, (runs, _) in plans().items() if name != "runtime.quantization")
    assert set(list_tasks()) <= set(plans())


@pytest.mark.parametrize(
    ("gone", "name", "do"),
    [
        ("models/smollm2-135m", "smollm2-135m", "adjudge fetch smollm2-135m"),
        ("models/minilm-l6", "minilm-l6", "adjudge fetch minilm-l6"),
        ("vader", "rated sentences", "adjudge fetch vader"),
    ],
)
def test_something_not_fetched_is_missing_with_the_command_to_fetch_it(gone, name, do, well):
    shutil.rmtree(well / gone)
    assert missing() == [name]
    assert findings()[name].do == do
    assert plans()["adjudge demo, adjudge compare"][0] is False
    assert f"adjudge fetch ({name})" in plans()["adjudge demo, adjudge compare"][1]
    assert plans()["vader/movies"][0] == (name != "rated sentences")


def test_examining_creates_no_files(well, tmp_path):
    shutil.rmtree(well)
    before = sorted(tmp_path.rglob("*"))
    examine(str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_missing_only_for_folders_to_be_written(well, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(GIB, GIB, GIB // 2))
    assert missing() == ["runs folder"]  # nothing more is fetched into the cache
    assert "Make room" in findings()["runs folder"].do
    shutil.rmtree(well / "models/minilm-l6")
    assert missing() == ["runs folder", "cache folder", "minilm-l6"]
    assert plans()["adjudge demo, adjudge compare"] == (False, "see runs folder, cache folder above")


def test_a_runs_folder_that_cannot_be_written_is_missing(tmp_path):
    (tmp_path / "runs").write_text("a file")
    assert missing() == ["runs folder"]
    assert "--out" in findings()["runs folder"].do


@pytest.mark.parametrize(
    ("total", "free", "state"),
    [(2.0, 1.0, "missing"), (16.0, 1.0, "note"), (16.0, 8.0, "ok"), (None, None, "note"), (16.0, None, "note")],
)
def test_too_little_memory_is_reported(total, free, state, monkeypatch):
    monkeypatch.setattr(doctor, "memory_gib", lambda: total)
    monkeypatch.setattr(doctor, "available_gib", lambda: free)
    assert findings()["memory"].state == state
    assert examine().healthy == (state != "missing")


def test_without_the_hub_its_tasks_need_a_folder(monkeypatch):
    monkeypatch.setattr(doctor, "connection_problem", lambda _endpoint, ask_proxy: "no route to host")
    hub = findings()["hub"]
    assert (hub.state, hub.values["reachable"]) == ("note", False)
    assert "no route to host" in hub.message
    assert examine().healthy  # bundled models need no hub
    assert plans()["glue/rte"][0] is plans()["a model from the hub"][0] is False
    assert "--data-dir" in plans()["glue/rte"][1]
    assert plans()["vader/movies"][0] is True


def test_offline_mode_is_respected(monkeypatch):
    def never(_endpoint, ask_proxy):
        raise AssertionError("offline mode must not open a connection")

    monkeypatch.setattr(doctor, "connection_problem", never)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in findings()["hub"].message


def test_a_silent_name_server_does_not_delay_the_examination(monkeypatch):
    monkeypatch.setattr(doctor, "connection_problem", lambda _endpoint, ask_proxy: time.sleep(5))
    monkeypatch.setattr(doctor, "HUB_WAIT_S", 0.05)
    started = time.monotonic()
    assert "no answer within" in findings()["hub"].message
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "answers"),
        (urllib.error.HTTPError("", 403, "Forbidden", {}, None), "through the proxy: 403 Forbidden"),
        (urllib.error.URLError("refused"), "through the proxy: .*refused"),
    ],
)
def test_the_hub_is_checked_through_a_proxy(answer, message, monkeypatch):
    class Answer:
        __enter__ = __exit__ = lambda *_: None

    def urlopen(request, timeout):
        assert request.get_method() == "HEAD"
        assert timeout <= 5
        if answer is not None:
            raise answer
        return Answer()

    monkeypatch.setattr(doctor, "connection_problem", connection_problem)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy:1"})
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert re.search(message, findings()["hub"].message)


@pytest.mark.parametrize(
    ("library", "version", "message"),
    [("transformers", "4.57.0", "4.57.0, but >=5.17 is needed"), ("scipy", None, "not installed; >=1.11 is needed")],
)
def test_a_library_out_of_range_is_missing(library, version, message, monkeypatch):
    known = metadata.version

    def pretend(name):
        if name != library:
            return known(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", pretend)
    assert missing() == [library]
    assert findings()[library].message == message
    assert findings()[library].do.startswith(f"pip install '{library}")
    assert plans()["adjudge demo, adjudge compare"] == (False, f"see {library} above")


def test_a_pytorch_that_cannot_be_imported_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert missing() == ["PyTorch"]
    assert "dtype" not in findings()


def test_a_driver_without_a_visible_gpu_is_reported(tmp_path, monkeypatch):
    (tmp_path / "driver").mkdir()
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "driver")
    assert findings()["device"].state == "note"
    assert "PyTorch sees no GPU" in findings()["device"].message


def test_gpus_are_listed_with_their_memory(monkeypatch):
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_capability": lambda _device: (9, 0),
        "get_device_name": lambda device: f"Card {device}",
        "mem_get_info": lambda number: ((number + 1) * 10 * GIB, 80 * GIB),
        "is_bf16_supported": lambda including_emulation: True,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    reported = findings()
    assert (
        reported["device"].message
        == "Card cuda:0, 80.0 GiB, 10.0 free; Card cuda:1, 80.0 GiB, 20.0 free; the first is used"
    )
    assert reported["device"].values["devices"][1]["capability"] == "9.0"
    assert reported["dtype"].message == "auto is bfloat16: the GPU computes in bfloat16"


def test_the_tasks_in_a_data_folder_are_listed(tmp_path):
    for split in ("train", "dev"):
        file = tmp_path / f"data/glue/RTE/{split}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "data/sst2").mkdir()
    (tmp_path / "data/sst2/train-00000-of-00002.parquet").write_text("")
    folder = findings("data")["data folder"]
    assert folder.values["tasks"] == {"glue/rte": ["train", "dev"], "glue/sst2": ["train"]}
    assert plans("data")["glue/rte"] == (True, "in data: train, dev")
    assert plans("data")["glue/sst2"] == (False, "in data: train; files of train are missing")
    assert plans("data")["glue/cola"] == (False, "its files are not in data")


@pytest.mark.parametrize(("folder", "message"), [("nowhere", "no such folder"), ("cache", "the files of no task")])
def test_a_data_folder_without_tasks_is_missing(folder, message):
    examination = examine(folder)
    assert not examination.healthy
    assert message in next(finding.message for finding in examination.machine if finding.name == "data folder")
    assert plans(folder)["adjudge demo, adjudge compare"][0] is True


def test_the_verb_prints_a_table_or_json_and_exits_with_0_or_1(well):
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.stdout.split())
    assert "glue, 11 tasks yes rows come from the hub" in text
    assert "to do" not in text
    shutil.rmtree(well / "models/minilm-l6")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 1
    assert "minilm-l6: adjudge fetch minilm-l6" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    printed = CliRunner().invoke(app, ["doctor", "--json"])
    assert printed.exit_code == 1
    tree = json.loads(printed.stdout)
    assert tree["healthy"] is False
    assert {item["name"]: item["state"] for item in tree["machine"]}["minilm-l6"] == "missing"
    assert {"name": "vader/movies", "runs": True, "said": "the rated sentences are here"} in tree["plans"]


def examined_elsewhere() -> dict:
    """The examination of this machine in another process, and whether it imported PyTorch and transformers."""
    code = (
        "import json, sys; from adjudge.setup.doctor import examine; report = examine().as_json()\n"
        "print(json.dumps(report | {'imported': [name for name in ('torch', 'transformers') if name in sys.modules]}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[2])
    return json.loads(done.stdout)


def test_examining_imports_neither_pytorch_nor_transformers_and_says_what_pytorch_would():
    """Importing PyTorch takes most of the time where its library alone can tell; transformers would double it."""
    quick, here = examined_elsewhere(), examine().as_json()
    assert "torch" in sys.modules, "here it is asked itself"
    if any(path.exists() for path in GPU_FILES) or platform.machine() != "x86_64" or sys.platform != "linux":
        assert quick["imported"] == ["torch"]
    else:
        assert quick["imported"] == []
    said = [
        [item for item in report["machine"] if item["name"] in ("processor", "device", "dtype", "torch")]
        for report in (quick, here)
    ]
    assert len(said[0]) == 4 and said[0] == said[1]


def test_where_the_library_does_not_load_pytorch_itself_is_asked(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(torch_library, "GPU_FILES", ())
    monkeypatch.setattr(torch_library.sys, "platform", "linux")
    monkeypatch.setattr(torch_library.platform, "machine", lambda: "x86_64")

    def broken(_path):
        raise OSError("libgomp.so.1: cannot open shared object file")

    for library in (broken, lambda _path: object()):  # damaged, and without the function
        monkeypatch.setattr(torch_library.ctypes, "CDLL", library)
        assert torch_library.torch_library() is None
    monkeypatch.setattr(torch_library, "GPU_FILES", (tmp_path,))
    assert torch_library.torch_library() is None
