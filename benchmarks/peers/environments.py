"""Make and find the peers' environments: one virtual environment a requirement file, none of them adjudge's own.

    python benchmarks/peers/environments.py              # make those that are missing
    python benchmarks/peers/environments.py trl-0.11     # only this one
    python benchmarks/peers/environments.py --recreate   # delete and make anew
    python benchmarks/peers/environments.py --list       # say what is there, and why something is not usable

Only the standard library is imported, so a driver may import this module to ask `PEERS`, `python_of` and `reason_missing`.
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
    "trl-0.11": "import torch, transformers, peft; from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer",
    "trl-1.12": "import torch, transformers, peft; from trl.experimental.ppo import PPOConfig, PPOTrainer",
    "trl-1.16": "import torch, transformers, peft; from trl import GRPOTrainer, RLOOTrainer, SFTTrainer",
}


@dataclass(frozen=True)
class Peer:
    """One program that adjudge is measured against."""

    title: str
    script: str
    environment: str
    against: str  # which of adjudge's measurements it stands beside: ppo, sft or evaluation

    @property
    def path(self) -> Path:
        """The script's file."""
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
    """The requirement file of an environment."""
    return HERE / f"requirements-{name}.txt"


def python_of(name: str) -> Path:
    """The interpreter of an environment, whether or not it exists yet."""
    folder = ENVIRONMENTS / name
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _stamp(name: str) -> Path:
    return ENVIRONMENTS / name / "requirements.sha256"


def _digest(name: str) -> str:
    return hashlib.sha256(requirements_of(name).read_bytes()).hexdigest()


def reason_missing(name: str) -> str | None:
    """Why an environment can't be used, or None where it can: made whole, and from the requirement file as it is now."""
    how = f"make it with: python benchmarks/peers/environments.py {name}"
    if name not in IMPORTS:
        return f"no environment is called {name!r}; there are {', '.join(IMPORTS)}"
    if not python_of(name).exists():
        return f"the environment {name} has not been made; {how}"
    if not _stamp(name).exists():
        return f"the environment {name} was not made whole; {how}"
    if _stamp(name).read_text() != _digest(name):
        return f"{requirements_of(name).name} has changed since the environment {name} was made; {how}"
    return None


def _call(command: list[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise RuntimeError(f"{doing} failed (exit status {done.returncode}):\n{tail}")


def make(name: str, *, recreate: bool = False) -> None:
    """Make one environment from its requirement file; raises RuntimeError with pip's or the import's own last lines."""
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
    _call([str(python), "-c", IMPORTS[name]], f"importing what {name} is for")
    _stamp(name).write_text(_digest(name))


def main() -> int:
    """Make the environments named on the command line; the exit status is the number that failed."""
    parser = argparse.ArgumentParser(description="Make the environments of the peers that adjudge is measured against.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(IMPORTS)} (default: all)")
    parser.add_argument("--list", action="store_true", help="only say what is there")
    parser.add_argument("--recreate", action="store_true", help="delete and make anew")
    arguments = parser.parse_args()
    failed = 0
    for name in arguments.names or IMPORTS:
        if name not in IMPORTS:
            parser.error(f"no environment is called {name!r}; there are {', '.join(IMPORTS)}")
        reason = reason_missing(name)
        if not arguments.list and (reason or arguments.recreate):
            print(f"{name}: making it", flush=True)
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
