"""Write the parts of the documentation that come from the code: the page of settings and the table of tasks.

python tools/generate_docs.py            # write them
python tools/generate_docs.py --check    # exit status 1 when one is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from adjudge.config import Config, keys_of, load_config, value_of
from adjudge.tasks import list_tasks, load_task

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "docs/reference/settings.md"
TASKS = ROOT / "docs/reference/tasks.md"
COMMAND = "python tools/generate_docs.py"
BEGIN, END = "<!-- tasks:begin -->", "<!-- tasks:end -->"

INTRODUCTION = f"""# Settings

Every setting of a run, with its default and its value under `--preset paper` (the constants of arXiv 2410.11020).
`null` means unset. This page is generated from the code by `{COMMAND}`.

```sh
adjudge settings                                    # this list, in the terminal
adjudge settings ppo --preset paper                 # a part of it
adjudge train ppo ppo.clip=0.1                      # change one
adjudge train ppo --config recipes/sst2-ppo.yaml    # change many
```

An override on the command line wins over the file, and the file over the preset.
Unknown keys are refused, with the nearest right one. From Python, write `__` for the dots: `ppo__clip=0.1`.
"""


def shown(config: Config, key: str) -> str:
    """Return the value of a setting as YAML on one line."""
    text = yaml.safe_dump(value_of(config, key), default_flow_style=True, width=1000)
    return text.removesuffix("\n...\n").strip()


def summary_of(group: str) -> str:
    """Return the first line of the docstring of a group of settings."""
    return (type(getattr(Config(), group)).__doc__ or "").strip().partition("\n")[0]


def settings_page() -> str:
    """Return the whole page of settings: one table per group."""
    default, paper = load_config(), load_config(preset="paper")
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, meaning in keys_of().items():
        group = key.partition(".")[0] if "." in key else ""
        groups.setdefault(group, []).append((key, meaning))
    parts = [INTRODUCTION]
    for group, keys in groups.items():
        heading = f"## {group}\n\n{summary_of(group)}" if group else "## The run"
        rows = [
            f"| `{key}` | {shown(default, key)} | {shown(paper, key)} | {meaning} |".replace("</", "&lt;/")
            for key, meaning in keys
        ]
        header = "| setting | default | paper | meaning |\n| --- | --- | --- | --- |"
        parts.append("\n".join([heading, "", header, *rows, ""]))
    return "\n".join(parts)


def tasks_table() -> str:
    """Return the table of the built-in tasks."""
    rows = []
    for name in list_tasks():
        task: Any = load_task(name)
        answers = ", ".join(task.words) or f"a number from {task.number.low:g} to {task.number.high:g}"
        rows.append(f"| `{name}` | {task.title} | {answers} | {', '.join(task.metrics)} |")
    return "\n".join(["| task | title | answers | metrics |", "| --- | --- | --- | --- |", *rows])


def pages() -> dict[Path, str]:
    """Return what each page should hold. Raises ValueError when the page of tasks lacks its two markers."""
    whole = TASKS.read_text(encoding="utf-8")
    if whole.count(BEGIN) != 1 or whole.count(END) != 1:
        raise ValueError(f"{TASKS}: needs the lines {BEGIN} and {END}, once each and in this order")
    before, _, rest = whole.partition(BEGIN)
    after = rest.partition(END)[2]
    return {SETTINGS: settings_page(), TASKS: f"{before}{BEGIN}\n{tasks_table()}\n{END}{after}"}


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or name those that are out of date; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the parts of the documentation that come from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when a page is out of date")
    check = parser.parse_args(arguments).check
    outdated = [
        path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in outdated:
        name = path.relative_to(ROOT).as_posix()
        if check:
            print(f"{name} is out of date; regenerate it with: {COMMAND}", file=sys.stderr)
        else:
            path.write_text(pages()[path], encoding="utf-8")
            print(f"wrote {name}")
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
