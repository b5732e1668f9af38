"""What a result depends on beside its settings: the code, the libraries, the machine, the model, the rows.

Written as environment.json when a run starts, so that a difference between two runs can be told from a difference between their machines.
docs/reference/run-folder.md describes every field.
"""

from __future__ import annotations

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
from adjudge.runs.folder import Run, read_json
from adjudge.runs.start import model_hashes, starting_point
from adjudge.system.console import warn
from adjudge.system.files import sha256_of, write_json
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
"""CPU features by which PyTorch's kernels are chosen, or the precision is, as `torch.cpu.get_capabilities` calls them."""
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
"""Environment variable: the command line of the process that asked for this one."""

_MATTERS = (
    *("adjudge.version", "adjudge.sha256", "python", "libc", "cpu.name", "cpu.flags", "cpu.kernels", "libraries"),
    *("device", "dtype.name", "threads", "variables", "model.commit", "model.sha256", "init.sha256"),
)
"""Fields, or groups of them, that may make results unequal."""


def record_environment(run: Run, key: str, specs: Sequence[TaskSpec], rows_sha256: str) -> None:
    """Write environment.json into the run folder; arguments and errors are those of `environment`.

    Of a run that is resumed the first one stays, with what is different now under ``resumed``; a difference is warned of.
    """
    now, path = environment(run.config, key, specs, rows_sha256), run.folder / FILE
    if not run.resumed or not path.is_file():
        write_json(path, now)
        return
    first = read_json(path)
    changed = differences(first, now)
    if changed:
        warn(
            f"going on elsewhere than the run began, so that the result may differ in its last bits: {'; '.join(changed)}"
        )
    again = {"started": now["started"], "command": now["command"], "changed": changed}
    write_json(path, {**first, "resumed": [*first.get("resumed", []), again]})


def environment(config: Config, key: str, specs: Sequence[TaskSpec], rows_sha256: str) -> dict[str, Any]:
    """What a run of `config` on the tasks depends on; `key` is the setting that names its model (none: ""), as its method's entry has it.

    Takes the time to hash the model's files, about a second for a gigabyte. Raises ModelError when the model is not to be had.
    """
    import torch

    from adjudge.models.sources.loading import resolve_device

    device = resolve_device(config.runtime)
    found: dict[str, Any] = {
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
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "model": model_identity(str(value_of(config, key))) if key else None,
        "data": {"rows_sha256": rows_sha256, "tasks": {spec.name: _source(spec, config) for spec in specs}},
    }
    if (start := starting_point(config)) is not None:
        found["init"] = {"run": config.init, "sha256": start.files}
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What may make results unequal between two environments, a line each: ``threads 2 → 4``.

    Code, libraries, machine, precision, threads and the model's files count; the rows and the settings are others' to compare, and
    where and when something was run does not matter.
    """
    before, after = dict(flat(one)), dict(flat(other))
    keys = [key for key in dict.fromkeys([*before, *after]) if _matters(key)]
    return [
        f"{key} {_short(before.get(key))} → {_short(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def pinned(folder: Path, config: Config) -> Config:
    """The settings with which the judge of a finished run is loaded: a model of the hub at the commit that the run began with.

    Its adapter belongs to that commit, whatever the name stands for by now.
    """
    model = (read_json(folder / FILE).get("model") if (folder / FILE).is_file() else None) or {}
    if "commit" not in model or model["name"] != config.model or "@" in config.model:
        return config
    name = f"{config.model}@{model['commit']}"
    trusted = config.runtime.trust_remote_code
    runtime = config.runtime.model_copy(update={"trust_remote_code": name if trusted == config.model else trusted})
    return config.model_copy(update={"model": name, "runtime": runtime})


def command() -> str:
    """The command line that asked for the run; of a comparison's cell, that of the comparison."""
    asked = os.environ.get(COMMAND)
    if asked:
        return asked
    program = Path(sys.argv[0])
    ours = program.stem == "adjudge" or (program.name == "__main__.py" and program.parent.name == "adjudge")
    return shlex.join(["adjudge" if ours else str(program), *sys.argv[1:]])


def cpu() -> dict[str, Any]:
    """The processor: its name, its cores that this process may use, its flags among `FLAGS`, the instruction set PyTorch takes."""
    import torch

    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return {
        "name": _cpu_name(),
        "cores": usable_cores(),
        "flags": [name for name in FLAGS if known.get(name)],
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }


def usable_cores() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def libraries() -> dict[str, str]:
    """Versions of the libraries that are installed."""
    import torch

    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"torch": torch.__version__}  # with the build behind the +, which package metadata may lack


def describe_device(name: str) -> dict[str, Any]:
    """The device that computes; of a CUDA device also its model and what drives it."""
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


def model_identity(name: str) -> dict[str, Any]:
    """Which model a name stands for now: the hub's commit, or the SHA-256 of the files in its folder. Raises ModelError."""
    from adjudge.models.sources.bundled import BUNDLED, bundled_folder
    from adjudge.models.sources.loading import resolve_commit

    commit = resolve_commit(name)
    if commit is not None:
        return {"name": name, "commit": commit}
    folder = bundled_folder(name) if name in BUNDLED else Path(name).expanduser()
    return {"name": name, "sha256": model_hashes(folder)}


def _dtype(config: Config, key: str, device: Any) -> dict[str, str]:
    from adjudge.models.sources.loading import explain_dtype, resolve_dtype

    if key.startswith("encoder."):
        return {"name": "float32", "why": "an encoder's weights are all trained"}
    name = str(resolve_dtype(config.runtime, device)).removeprefix("torch.")
    return {"name": name, "why": explain_dtype(config.runtime, device)}


def _source(spec: TaskSpec, config: Config) -> dict[str, Any]:
    """Where a task's rows come from: files with their hashes, or the hub's data set with its revision."""
    from adjudge.tasks.reading.sources import split_files

    files = [path for split in ("train", config.data.split) for path in split_files(spec, split, config.data.data_dir)]
    hub = spec.source.hub
    if files or hub is None:
        return {"files": {str(path): digest for path in dict.fromkeys(files) for digest in [sha256_of(path)]}}
    return {"hub": hub.path, "revision": hub.revision}


@cache
def _source_sha256() -> str:
    """One hash of all our own code: it says more than a commit, which an installed wheel lacks and a changed file outdates."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.yaml")]):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def source_commit() -> dict[str, Any]:
    """Commit of the source tree that runs, and whether its code was changed since; nulls where there is none."""
    root = Path(__file__).resolve().parents[3]
    nothing: dict[str, Any] = {"commit": None, "dirty": None}
    if not (root / ".git").exists():  # in a wheel, or a folder inside another project's tree
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


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _matters(key: str) -> bool:
    return any(key == start or key.startswith(f"{start}.") for start in _MATTERS)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by their dotted keys."""
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
