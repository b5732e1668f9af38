"""What this machine has, what would run on it, and what to do about the rest. Nothing is downloaded, nothing is written."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from adjudge.errors import DataError
from adjudge.models.sources.bundled import BUNDLED, bundled_folder, is_fetched
from adjudge.runs.environment import cpu, describe_device, source_commit, usable_cores
from adjudge.system.files import cache_dir
from adjudge.system.memory import available_gib, memory_gib
from adjudge.tasks import list_tasks, load_task
from adjudge.tasks.reading import vader
from adjudge.tasks.reading.hub import unreachable
from adjudge.tasks.reading.sources import split_files
from adjudge.tasks.spec import TaskSpec
from adjudge.version import __version__

HUB_WAIT_S = 5.0
MEMORY_GIB = 3.0
"""The demonstration's methods take up to 2.6 GiB each (docs/results/vader-movies.md), one after the other."""
DISK_GIB = 1.0
"""The models take 0.4 GiB, their archives as much again while they are unpacked; a run folder some ten MiB."""
SPLITS = ("train", "dev", "test")
NVIDIA_DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "missing"]
    """``note``: may matter; ``missing``: what is needed is not there."""
    said: str
    do: str = ""
    """What to do about it."""
    values: dict[str, Any] = field(default_factory=dict)
    """The same as data."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Something that could be run."""

    name: str
    runs: bool
    said: str
    """What it takes, or what it lacks."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The machine, and what would run on it."""

    machine: list[Finding]
    plans: list[Plan]

    @property
    def healthy(self) -> bool:
        """Whether nothing that is needed is missing."""
        return all(finding.state != "missing" for finding in self.machine)


def examine(data_dir: str | None = None) -> Examination:
    """Look at the machine, and with `data_dir` at the tasks' files in it. Takes the time to import PyTorch, a few seconds at most."""
    hub = _in_background(_hub)  # while PyTorch is imported
    machine = [_python(), _adjudge(), *_libraries(), *_computing(), _memory(), *_disks(), *_fetched()]
    machine.append(hub())
    if data_dir is not None:
        machine.append(_data(data_dir))
    return Examination(machine, list(_plans(machine, data_dir)))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "Python", "ok", f"{version} ({sys.executable})", values={"version": version, "executable": sys.executable}
    )


def _adjudge() -> Finding:
    commit = source_commit()
    tree = (
        f", source tree at {commit['commit'][:12]}{', changed since' if commit['dirty'] else ''}"
        if commit["commit"]
        else ""
    )
    return Finding("adjudge", "ok", f"{__version__}{tree}", values={"version": __version__, **commit})


def _libraries() -> Iterator[Finding]:
    """The libraries that adjudge needs, the three that matter most by name, others only where something is wrong with them."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("adjudge") or ()]
    except metadata.PackageNotFoundError:  # run from its source tree, so that nothing says which versions it supports
        wanted = [Requirement(name) for name in ("torch", "transformers", "peft")]
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, span = requirement.name, str(requirement.specifier) or "any version"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"not installed; {span} is needed", f"pip install '{requirement}'")
            continue
        values = {"version": version, "supported": span}
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding(name, "missing", f"{version}, but {span} is needed", f"pip install '{requirement}'", values)
        elif name in ("torch", "transformers", "peft"):
            yield Finding(name, "ok", f"{version} ({span} is supported)", values=values)


def _computing() -> Iterator[Finding]:
    """Processor, devices, and the precision that is taken."""
    try:
        import torch

        from adjudge.config import RuntimeConfig
        from adjudge.models.sources.loading import explain_dtype, resolve_device, resolve_dtype
    except (ImportError, OSError) as error:  # OSError: one of its libraries cannot be loaded
        yield Finding(
            "PyTorch",
            "missing",
            f"cannot be imported: {error}",
            "Install it again: pip install --force-reinstall torch",
        )
        return
    processor = cpu() | {"threads": torch.get_num_threads()}
    features = ", ".join(processor["flags"]) or "no AVX2"
    said = f"{processor['name']}, {usable_cores()} cores, {processor['threads']} threads ({features})"
    yield Finding("processor", "ok", said, values=processor)
    runtime = RuntimeConfig()
    device = resolve_device(runtime)
    yield _device(str(device))
    dtype = str(resolve_dtype(runtime, device)).removeprefix("torch.")
    why = explain_dtype(runtime, device)
    yield Finding("dtype", "ok", f"auto is {dtype}: {why}", values={"dtype": dtype, "why": why})


def _device(name: str) -> Finding:
    import torch

    if name != "cpu":
        devices = [describe_device(f"cuda:{number}") for number in range(torch.cuda.device_count())]
        for number, found in enumerate(devices):
            free, total = torch.cuda.mem_get_info(number)
            found |= {"memory_gib": round(total / 2**30, 1), "free_gib": round(free / 2**30, 1)}
        shown = [f"{found['hardware']}, {found['memory_gib']} GiB, {found['free_gib']} free" for found in devices]
        more = "; the first is taken" if len(devices) > 1 else ""
        return Finding("device", "ok", f"{'; '.join(shown)}{more}", values={"device": name, "devices": devices})
    if NVIDIA_DRIVER.exists():
        build = torch.version.cuda or "none"
        return Finding(
            "device",
            "note",
            f"the processor; there is an NVIDIA driver, but PyTorch sees no GPU (its CUDA: {build})",
            "Install a PyTorch that was built for this driver's CUDA, and see that CUDA_VISIBLE_DEVICES hides nothing.",
            {"device": "cpu", "cuda": torch.version.cuda},
        )
    return Finding(
        "device", "ok", "the processor; PyTorch sees no GPU", values={"device": "cpu", "cuda": torch.version.cuda}
    )


def _memory() -> Finding:
    total, free = memory_gib(), available_gib()
    values = {"total_gib": _rounded(total), "available_gib": _rounded(free)}
    if total is None or free is None:
        return Finding("memory", "note", "cannot be told on this system", values=values)
    said = f"{total:.1f} GiB, {free:.1f} available"
    if total < MEMORY_GIB:
        return Finding(
            "memory", "missing", f"{said}; the demonstration takes {MEMORY_GIB:g} GiB", "Take a larger machine.", values
        )
    if free < MEMORY_GIB:
        return Finding(
            "memory", "note", f"{said}; the demonstration takes {MEMORY_GIB:g} GiB", "End other programs.", values
        )
    return Finding("memory", "ok", said, values=values)


def _disks() -> Iterator[Finding]:
    """Free space where runs and fetched things go."""
    yield _disk("runs folder", Path("runs"), "Name another place with --out.", needed=True)
    lacking = not all(map(is_fetched, BUNDLED))
    yield _disk(
        "cache folder", cache_dir(), "Name another place with the environment variable ADJUDGE_CACHE.", needed=lacking
    )


def _disk(name: str, folder: Path, do: str, *, needed: bool) -> Finding:
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free / 2**30
    values = {"folder": str(folder.absolute()), "free_gib": round(free, 1)}
    said = f"{folder.absolute()}, {free:.1f} GiB free"
    if needed and not (there.is_dir() and os.access(there, os.W_OK)):
        return Finding(name, "missing", f"{said}; nothing can be written there", do, values)
    if needed and free < DISK_GIB:
        return Finding(name, "missing", f"{said}; {DISK_GIB:g} GiB is needed", f"Make room. {do}", values)
    return Finding(name, "ok", said, values=values)


def _fetched() -> Iterator[Finding]:
    """The bundled models and the rated sentences."""
    for name in BUNDLED:
        folder = bundled_folder(name) if is_fetched(name) else None
        yield _offline(name, folder)
    yield _offline("vader", vader.vader_folder() if vader.is_fetched() else None)


def _offline(name: str, folder: Path | None) -> Finding:
    what = {"vader": "rated sentences"}.get(name, name)
    if folder is None:
        return Finding(what, "missing", "not fetched yet", f"adjudge fetch {name}", {"folder": None})
    return Finding(what, "ok", str(folder), values={"folder": str(folder)})


def _hub() -> Finding:
    """Whether the hub answers. It is needed only for models and data sets that are named by their id there."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return Finding(
            "hub", "note", "not asked: HF_HUB_OFFLINE is set; its cache is used", values={"reachable": False}
        )
    problem = _unreachable(endpoint)
    if problem is None:
        return Finding("hub", "ok", f"{endpoint} answers", values={"reachable": True, "endpoint": endpoint})
    do = "Only models and data sets of the hub need it. HF_ENDPOINT names a mirror, https_proxy a proxy."
    return Finding(
        "hub", "note", f"{endpoint} cannot be reached: {problem}", do, {"reachable": False, "endpoint": endpoint}
    )


def _unreachable(endpoint: str) -> str | None:
    """As `adjudge.tasks.reading.hub.unreachable`, but a proxy is asked too."""
    problem = unreachable(endpoint)
    if problem is not None or urllib.parse.urlsplit(endpoint).scheme not in urllib.request.getproxies():
        return problem
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_WAIT_S):
            return None
    except urllib.error.HTTPError as error:
        return f"through the proxy: {error.code} {error.reason}"
    except OSError as error:
        return f"through the proxy: {error}"


def _in_background(look: Callable[[], Finding]) -> Callable[[], Finding]:
    """Begin to look at once; what is returned waits for the finding, `HUB_WAIT_S` at most, as a name server may let one wait for long."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(look()), daemon=True)
    thread.start()

    def finding() -> Finding:
        thread.join(HUB_WAIT_S)
        no_answer = Finding("hub", "note", f"no answer within {HUB_WAIT_S:g} seconds", values={"reachable": False})
        return found[0] if found else no_answer

    return finding


def _data(data_dir: str) -> Finding:
    """Which tasks' files lie in a data folder."""
    if not Path(data_dir).is_dir():
        return Finding(
            "data folder",
            "missing",
            f"{data_dir}: there is no such folder",
            "Name the folder that holds glue or superglue.",
        )
    there = {name: list(splits) for name in list_tasks() if (splits := _splits(load_task(name), data_dir))}
    values = {"folder": data_dir, "tasks": there}
    if not there:
        do = "It should hold folders such as glue/SST-2 in the official download layout, or the hub's Parquet files."
        return Finding("data folder", "missing", f"{data_dir} holds the files of no task", do, values)
    return Finding("data folder", "ok", f"{data_dir} holds files of {len(there)} tasks", values=values)


def _splits(spec: TaskSpec, data_dir: str) -> dict[str, bool]:
    """The splits whose files are there; False for files that are not whole."""
    if not (spec.source.files or spec.source.hub):
        return {}
    found = {}
    for split in SPLITS:
        try:
            if split_files(spec, split, data_dir):
                found[split] = True
        except DataError:  # one of a numbered set is missing
            found[split] = False
    return found


def _plans(machine: Sequence[Finding], data_dir: str | None) -> Iterator[Plan]:
    """What would run: the demonstration, then the tasks by where their rows come from."""
    state = {finding.name: finding.state for finding in machine}
    broken = [f.name for f in machine if f.state == "missing" and f.name != "data folder"]
    to_fetch = {"smollm2-135m", "minilm-l6", "rated sentences"}
    worse = [name for name in broken if name not in to_fetch]
    if worse:
        yield Plan("make demo, adjudge compare", False, f"see {', '.join(worse)} above")
    elif broken:
        yield Plan(
            "make demo, adjudge compare",
            False,
            f"first: adjudge fetch ({', '.join(broken)}); a package index is needed once",
        )
    else:
        yield Plan("make demo, adjudge compare", True, "zero-shot, few-shot, sft, ppo and encoder on vader/movies")
    reachable = next(finding.values.get("reachable", False) for finding in machine if finding.name == "hub")
    for name in list_tasks():
        yield _task_plan(load_task(name), data_dir, fetched=state["rated sentences"] == "ok", reachable=reachable)
    yield Plan(
        "a model from the hub",
        reachable,
        "the hub answers" if reachable else "only one that lies in the hub client's cache",
    )
    quantization = util.find_spec("bitsandbytes") is not None
    said = "bitsandbytes is installed" if quantization else "pip install 'adjudge[quantization]'"
    yield Plan("runtime.quantization", quantization, said)


def _task_plan(spec: TaskSpec, data_dir: str | None, *, fetched: bool, reachable: bool) -> Plan:
    if spec.source.vader is not None:
        return Plan(spec.name, fetched, "the rated sentences are here" if fetched else "first: adjudge fetch vader")
    splits = _splits(spec, data_dir) if data_dir is not None and Path(data_dir).is_dir() else {}
    if splits:
        damaged = [split for split, whole in splits.items() if not whole]
        said = f"in {data_dir}: {', '.join(splits)}" + (
            f"; files of {', '.join(damaged)} are missing" if damaged else ""
        )
        return Plan(spec.name, splits.get("train", False) and splits.get("dev", False), said)
    if data_dir is not None:
        return Plan(spec.name, False, f"its files are not in {data_dir}")
    if spec.source.hub is None:
        return Plan(spec.name, False, "name the folder with its files: --data-dir DIR")
    if reachable:
        return Plan(spec.name, True, f"rows come from the hub: {spec.source.hub.path}")
    return Plan(
        spec.name,
        False,
        "the hub cannot be reached (what lies in its client's cache still loads): name a folder with --data-dir DIR",
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
