"""Make and find the peers' virtual environments, one per requirement file, none of them adjudge's.

    python benchmarks/peers/environments.py              # make the missing ones
    python benchmarks/peers/environments.py trl-0.11     # only this one
    python benchmarks/peers/environments.py --recreate   # delete and make again
    python benchmarks/peers/environments.py --list       # show which can be used, and why others cannot

This module imports only the standard library, so a driver can use its `PEERS`, `python_of` and `reason_missing`.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".envs"
IMPORTS = {
    "trl-0.11": "import torch, transformers, peft; "
    "from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer",
    "trl-1.12": "import torch, transformers, peft; from trl.experimental.ppo import PPOConfig, PPOTrainer",
    "trl-1.16": "import torch, transformers, peft; from trl import GRPOTrainer, RLOOTrainer, SFTTrainer",
}


@dataclass(frozen=True)
class Peer:
    """One program that adjudge is measured against."""

    title: str
    script: str
    environment: str
    against: str  # the measurement of adjudge it is compared with: ppo, sft or evaluation

    @property
    def path(self) -> Path:
        """Return the path of the script."""
        return HERE / self.script


PEERS = {
    "ppo-trl-0.11": Peer("trl 0.11.4 PPO", "ppo_trl_0_11.py", "trl-0.11", "ppo"),
    "ppo-trl-1.12": Peer("trl 1.12 PPO", "ppo_trl_1_12.py", "trl-1.12", "ppo"),
    "sft-trl-1.16": Peer("trl 1.16 SFT", "sft_trl_1_16.py", "trl-1.16", "sft"),
    "grpo-trl-1.16": Peer("trl 1.16 GRPO", "grpo_trl_1_16.py", "trl-1.16", "ppo"),
    "rloo-trl-1.16": Peer("trl 1.16 RLOO", "rloo_trl_1_16.py", "trl-1.16", "ppo"),
    "generate-transformers": Peer("transformers generate", "generate_transformers.py", "trl-1.16", "evaluation"),
}


def requirements_of(name: str) -> Path:
    """Return the requirement file of an environment."""
    return HERE / f"requirements-{name}.txt"


def python_of(name: str) -> Path:
    """Return the interpreter of an environment, which may not exist yet."""
    folder = ENVIRONMENTS / name
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _stamp(name: str) -> Path:
    return ENVIRONMENTS / name / "requirements.sha256"


def _digest(name: str) -> str:
    return hashlib.sha256(requirements_of(name).read_bytes()).hexdigest()


def reason_missing(name: str) -> str | None:
    """Return why an environment cannot be used, or None if it can.

    It can be used when it is complete and its requirement file has not changed since.
    """
    how = f"make it with: python benchmarks/peers/environments.py {name}"
    if name not in IMPORTS:
        return f"unknown environment {name!r}; the environments are {', '.join(IMPORTS)}"
    if not python_of(name).exists():
        return f"the environment {name} does not exist; {how}"
    if not _stamp(name).exists():
        return f"the environment {name} is incomplete; {how}"
    if _stamp(name).read_text() != _digest(name):
        return f"{requirements_of(name).name} has changed since the environment {name} was made; {how}"
    return None


def _call(command: list[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise RuntimeError(f"{doing} failed (exit status {done.returncode}):\n{tail}")


def make(name: str, *, recreate: bool = False) -> None:
    """Make one environment from its requirement file. Raises RuntimeError with the last lines of output."""
    folder = ENVIRONMENTS / name
    if recreate and folder.exists():
        shutil.rmtree(folder)
    python = python_of(name)
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        str(requirements_of(name)),
    ]
    _call(install, f"installing {requirements_of(name).name}")
    _call([str(python), "-c", IMPORTS[name]], f"importing the packages of {name}")
    _stamp(name).write_text(_digest(name))


def main() -> int:
    """Make the environments named on the command line; return the number of failures."""
    parser = argparse.ArgumentParser(description="Make the environments of adjudge's peers.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"environments, of {', '.join(IMPORTS)} (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="only show which can be used")
    parser.add_argument("--recreate", action="store_true", help="delete and make again")
    arguments = parser.parse_args()
    failed = 0
    for name in arguments.names or IMPORTS:
        if name not in IMPORTS:
            parser.error(f"unknown environment {name!r}; the environments are {', '.join(IMPORTS)}")
        reason = reason_missing(name)
        if not arguments.list and (reason or arguments.recreate):
            print(f"{name}: making the environment …", flush=True)
            try:
                make(name, recreate=arguments.recreate)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                failed += 1
                print(f"{name}: {error}", flush=True)
                continue
            reason = None
        print(f"{name}: {reason or python_of(name)}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
