"""What a result depends on besides its settings: code, libraries, machine, model and rows.

Written as environment.json when a run starts, to tell a difference between two runs from a difference between their
machines. docs/reference/run-folder.md describes every field.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from adjudge.config import Config, value_of
from adjudge.models.chat_api import is_api
from adjudge.rewards.function import FUNCTIONS, recorded
from adjudge.runs.folder import Run, read_json
from adjudge.runs.start import StartingPoint, model_hashes
from adjudge.system.console import warn
from adjudge.system.files import sha256_of, write_json
from adjudge.system.parallel import world_size
from adjudge.tasks.spec import TaskSpec
from adjudge.version import __version__

FILE = "environment.json"
SCHEMA = 1

LIBRARIES = (
    *(
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "datasets",
        "safetensors",
        "tokenizers",
        "huggingface_hub",
        "bitsandbytes",
    ),
    *("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "pydantic", "jinja2"),
)
FLAGS = ("avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_fp16")
"""CPU features by which PyTorch picks its kernels, or we pick the precision (names of `torch.cpu.get_capabilities`)."""
VARIABLES = (
    *(
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "MKL_CBWR",
        "MKL_ENABLE_INSTRUCTIONS",
        "ONEDNN_MAX_CPU_ISA",
        "ATEN_CPU_CAPABILITY",
    ),
    *("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Environment variables that change what the libraries compute."""
COMMAND = "ADJUDGE_COMMAND"
"""Environment variable with the command line of the process that started this one."""
JOBS = "ADJUDGE_JOBS"
"""Environment variable with the number of runs that a comparison has side by side, this one among them."""

_MATTERS = (
    *("adjudge.version", "adjudge.sha256", "python", "libc", "cpu.name", "cpu.flags", "cpu.kernels", "libraries"),
    *(
        "device",
        "dtype.name",
        "threads",
        "processes",
        "variables",
        "model.commit",
        "model.sha256",
        "init.sha256",
        "reward_model.sha256",
        FUNCTIONS,
    ),
)
"""Fields, or groups of them, that may make results unequal."""


def record_environment(run: Run, key: str, specs: Sequence[TaskSpec], rows_sha256: str) -> None:
    """Write environment.json into the run folder; arguments and errors are those of `environment`.

    A resumed run keeps the first environment and lists the current differences under ``resumed``. It warns of them.
    """
    now, path = environment(run.config, key, specs, rows_sha256, run.start), run.folder / FILE
    now |= recorded(run.reward_functions)
    if run.reward_model is not None:
        now |= run.reward_model.recorded()
    if not run.resumed or not path.is_file():
        write_json(path, now)
        return
    first = read_json(path)
    changed = differences(first, now)
    if changed:
        warn(
            "this environment is not the one in which the run began, so the last bits of the result may differ: "
            f"{'; '.join(changed)}"
        )
    again = {"started": now["started"], "command": now["command"], "changed": changed}
    write_json(path, {**first, "resumed": [*first.get("resumed", []), again]})


def environment(
    config: Config, key: str, specs: Sequence[TaskSpec], rows_sha256: str, start: StartingPoint | None = None
) -> dict[str, Any]:
    """Return what a run of `config` on the tasks depends on.

    `key` is the setting that names the model, as in the method's entry ("" for none). `start` saves hashing the adapter
    that ``init`` names again; a finished run is judged without it, and may have lost it. Hashing the model's files
    takes about a second per gigabyte. Raises ModelError when the model is not available.
    """
    import torch

    from adjudge.models.sources.device import resolve_device

    device = resolve_device(config.runtime)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "adjudge": {"version": __version__, "sha256": _source_sha256(), **source_commit()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "cpu": cpu(),
        "libraries": libraries(),
        "device": describe_device(str(device)),
        "dtype": _dtype(config, key, device),
        "threads": config.runtime.threads or torch.get_num_threads(),
        "jobs": jobs(),
        **({"processes": world_size()} if world_size() > 1 else {}),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "model": _model(config, str(value_of(config, key))) if key else None,
        "data": {"rows_sha256": rows_sha256, "tasks": {spec.name: _source(spec, config) for spec in specs}},
    }
    if config.init is not None:
        files = start.files if start else model_hashes(Path(config.init) / "adapter")
        record["init"] = {"run": config.init, "sha256": files}
    return record


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what may make results unequal between two environments, one per line: ``threads 2 → 4``.

    Code, libraries, machine, precision, threads and the model's files count. Rows and settings are compared elsewhere.
    Where and when something was run does not matter.
    """
    before, after = dict(flat(one)), dict(flat(other))
    keys = [key for key in dict.fromkeys([*before, *after]) if _matters(key)]
    return [
        f"{key} {_short(before.get(key))} → {_short(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def recorded_model(folder: Path) -> dict[str, Any]:
    """Return the model that a run was made with, as in its environment.json; nothing where none was recorded."""
    return (read_json(folder / FILE).get("model") if (folder / FILE).is_file() else None) or {}


def dated(folder: Path, config: Config) -> Config:
    """Return the settings with the date of the run's prompts: the day it started, unless one is set.

    Without it, a chat template that writes today's date would give another prompt on another day.
    """
    if config.prompt.date is not None or not (folder / FILE).is_file():
        return config
    started = datetime.fromisoformat(read_json(folder / FILE)["started"]).date()
    return config.model_copy(update={"prompt": config.prompt.model_copy(update={"date": started})})


def command() -> str:
    """Return the command line of the run; for a cell of a comparison, that of the comparison."""
    parent_command = os.environ.get(COMMAND)
    if parent_command:
        return parent_command
    program = Path(sys.argv[0])
    ours = program.stem == "adjudge" or (program.name == "__main__.py" and program.parent.name == "adjudge")
    return shlex.join(["adjudge" if ours else str(program), *sys.argv[1:]])


def jobs() -> int:
    """Return the number of runs side by side, this one included: 1 outside of a comparison with --jobs."""
    return int(os.environ.get(JOBS, "1"))


def cpu() -> dict[str, Any]:
    """Return the processor: its name, usable cores, flags among `FLAGS`, and PyTorch's instruction set."""
    import torch

    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return {
        "name": cpu_name(),
        "cores": usable_cores(),
        "flags": [name for name in FLAGS if known.get(name)],
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }


def usable_cores() -> int:
    """Return the number of processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@cache
def libraries() -> Mapping[str, str]:
    """Return the versions of the installed libraries."""
    import torch

    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions | {"torch": torch.__version__}  # with the build after the +, which package metadata may lack


def describe_device(name: str) -> dict[str, Any]:
    """Return the device that computes; for a CUDA device also its model and driver."""
    import torch

    if not name.startswith("cuda"):
        return {"name": name}
    major, minor = torch.cuda.get_device_capability(name)
    return {
        "name": name,
        "hardware": torch.cuda.get_device_name(name),
        "capability": f"{major}.{minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _model(config: Config, name: str) -> dict[str, Any]:
    """Return the model of a run; behind an API its address, since its weights are unknown."""
    if not is_api(name):
        return model_identity(name)
    record = {"name": name, "api": config.api.base_url}
    with contextlib.suppress(metadata.PackageNotFoundError):  # logged answers are read without it
        record["client"] = f"openai {metadata.version('openai')}"
    return record


def model_identity(name: str) -> dict[str, Any]:
    """Return the model a name refers to now: the hub's commit, or the SHA-256 of the files in its folder.

    Raises ModelError.
    """
    from adjudge.models.sources.bundled import BUNDLED, bundled_folder
    from adjudge.models.sources.loading import resolve_commit

    commit = resolve_commit(name)
    if commit is not None:
        return {"name": name, "commit": commit}
    folder = bundled_folder(name) if name in BUNDLED else Path(name).expanduser()
    return {"name": name, "sha256": model_hashes(folder)}


def _dtype(config: Config, key: str, device: Any) -> dict[str, str]:
    from adjudge.models.sources.device import explain_dtype, resolve_dtype

    if key and is_api(str(value_of(config, key))):
        return {"name": "unknown", "why": "the model computes behind an API"}
    if key != "model":
        return {"name": "float32", "why": "only the prompted model computes in another precision"}
    name = str(resolve_dtype(config.runtime, device)).removeprefix("torch.")
    return {"name": name, "why": explain_dtype(config.runtime, device)}


def _source(spec: TaskSpec, config: Config) -> dict[str, Any]:
    """Return where a task's rows come from: files with hashes, or the hub's data set with its revision."""
    from adjudge.tasks.reading.sources import split_files

    files = [path for split in ("train", config.data.split) for path in split_files(spec, split, config.data.data_dir)]
    on_hub = None if spec.on_hub is None else dict(zip(("hub", "revision"), spec.on_hub, strict=True))
    if files or on_hub is None:
        hashes = {str(path): digest for path in dict.fromkeys(files) for digest in [sha256_of(path)]}
        return {"files": hashes, **(on_hub if on_hub is not None and spec.source.table is not None else {})}
    return on_hub


@cache
def _source_sha256() -> str:
    """Return one hash of the package's own code.

    It is more precise than a commit: an installed wheel has none, and a changed file makes it outdated.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.yaml")]):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def source_commit() -> dict[str, Any]:
    """Return the commit of the running source tree, and whether its code was changed since.

    Both are null when there is no source tree.
    """
    root = Path(__file__).resolve().parents[3]
    nothing: dict[str, Any] = {"commit": None, "dirty": None}
    if not (root / ".git").exists():  # in a wheel, or in a folder inside another project's tree
        return nothing
    try:
        commit = _ask_git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_ask_git(root, "status", "--porcelain", "--", "src"))}
    except (OSError, subprocess.SubprocessError):
        return nothing


def _ask_git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def cpu_name() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _matters(key: str) -> bool:
    return any(key == start or key.startswith(f"{start}.") for start in _MATTERS)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values of nested mappings by their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
