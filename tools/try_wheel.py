"""Install a wheel into a fresh environment, beside the libraries of this one, and run what needs no model.

python tools/try_wheel.py dist/adjudge-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

COMMANDS = (
    ["--version"],
    ["methods"],
    ["tasks"],
    ["tasks", "vader/movies", "--help"],
    ["settings", "tracking"],
    ["demo", "--help"],
)


def main() -> None:
    """Exit with a message when a command fails, or when it is not the wheel's."""
    wheel = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="adjudge-") as temporary:
        folder = Path(temporary)
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        python = folder / "venv" / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
        paths = sysconfig.get_paths(vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")})
        # One line with a folder adds that folder alone: the editable installation in it stays unknown.
        (Path(paths["purelib"]) / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        code = "import adjudge, adjudge.api; print(adjudge.__file__)"
        place = Path(run(python, "-c", code, cwd=folder).strip())
        if not place.is_relative_to(folder):
            sys.exit(f"{place} was imported, not the wheel")
        for command in COMMANDS:
            run(folder / "venv" / "bin" / "adjudge", *command, cwd=folder)
            print(f"    adjudge {' '.join(command)}")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what a command prints; exit with its errors when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
