"""Compare the documentation with the code: commands, options, settings, tasks, metrics, names, links."""

import ast
import importlib
import inspect
import re
import runpy
import shlex
import textwrap
from pathlib import Path

import pytest
import typer
import yaml

import adjudge
from adjudge.cli.main import app
from adjudge.config import keys_of, load_config, parse_override, value_of
from adjudge.methods.registry import METHODS, known_names
from adjudge.tasks import list_tasks, load_task
from adjudge.tasks.reading.hooks import HOOKS
from adjudge.tasks.scoring.metrics import METRICS
from adjudge.tasks.scoring.suites import SUITES
from adjudge.tasks.spec import (
    FileSource,
    GeneratedSource,
    Generation,
    HubSource,
    LabelText,
    Procedure,
    TableSource,
    TaskSpec,
    VaderSource,
)
from adjudge.tasks.task_yaml import read_tree
from adjudge.tasks.validate import mistakes_of

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
FOLDERS = ("docs", "recipes", "benchmarks", "tests", "src", "tools")
FOUND = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
PAGES = sorted(page for page in FOUND if ".envs" not in page.parts)
"""All pages but those of the peers' environments."""
METHOD_HEADINGS = ("What it is", "The equations", "Settings", "What its log shows", "How it differs from the paper")
GROUP = typer.main.get_command(app)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def text_of(page):
    """Return the page without HTML comments, which nobody sees."""
    return re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def blocks(page, *languages):
    return [textwrap.dedent(body) for language, body in BLOCK.findall(text_of(page)) if language in languages]


def spans(page):
    return SPAN.findall(BLOCK.sub("", text_of(page)))


def shell_lines(page):
    """Return the lines of a page's shell blocks, joined at backslashes."""
    return [line for body in blocks(page, "sh", "console") for line in body.replace("\\\n", " ").splitlines()]


def commands_in(page):
    """Return the arguments of every `adjudge …` in a page's shell blocks, code spans and linked recipes."""
    commands = [shlex.split(line, comments=True)[1:] for line in shell_lines(page) if line.startswith("adjudge ")]
    commands += [shlex.split(span)[1:] for span in spans(page) if span.startswith("adjudge ")]
    for path in re.findall(r"\]\((\S+\.yaml)\)", text_of(page)):
        lines = (page.parent / path).read_text(encoding="utf-8").splitlines()
        commands += [shlex.split(line[1:])[1:] for line in lines if re.match(r"#\s+adjudge ", line)]
    return commands


COMMANDS = sorted(
    {(page.relative_to(ROOT).as_posix(), shlex.join(args)) for page in PAGES for args in commands_in(page)}
)


def parse(arguments):
    """Parse a command without running it; return its verb and parameters."""
    verb, *rest = arguments
    assert verb in GROUP.commands, f"there is no verb '{verb}'"
    if not rest or "--help" in rest:
        return verb, {}
    return verb, GROUP.commands[verb].make_context(verb, rest).params


def test_commands_are_found_and_wrong_ones_are_refused():
    assert len(COMMANDS) > 60
    with pytest.raises(Exception, match="--train-row"):
        parse(["train", "sft", "--train-row", "5"])
    with pytest.raises(Exception, match="parameter: out"):
        parse(["predict", "--run", "runs/a", "--input", "new.csv"])


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_documented_command_is_valid(page, command):
    arguments = shlex.split(command)
    if arguments[0].startswith("-"):
        assert arguments in (["--version"], ["--install-completion"])
        return
    verb, given = parse(arguments)
    overrides = given.get("overrides") or []
    config = load_config(preset=given.get("preset") or "default", file=_file(given), overrides=overrides)
    for override in overrides:
        key, value = parse_override(override)
        setting = value_of(config, key)
        if isinstance(setting, tuple):
            assert list(setting) == (value.split(",") if isinstance(value, str) else value)
        else:
            assert setting == value
    methods = [given.get("method"), *(given.get("methods") or "").split(",")]
    known = {*known_names(), "METHOD"}
    assert {name for name in methods if name} <= known
    if verb == "settings" and given.get("part"):
        assert any(given["part"] in key for key in keys_of())
    tasks = [*(given.get("task") or "").split(","), given.get("name") if verb == "tasks" else None]
    built_in = {task for task in tasks if task and "/" in task}
    assert built_in <= set(list_tasks())


def _file(given):
    file = given.get("config")
    return ROOT / file if file and file != "FILE.yaml" else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_other_commands_name_programs_and_targets_that_exist(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in shell_lines(page):
        words = [word for word in line.partition(" #")[0].split() if not re.match(r"[A-Z_]+=", word)]
        program = Path(words[0]).name if words else ""
        if program == "make":
            assert set(words[1:]) <= targets, f"{page.name}: {line}"
        elif program == "python" and words[1] == "-m" and words[2] != "pytest":
            assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file(), f"{page.name}: {line}"
        elif program == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_of_settings_hold_the_defaults(page):
    """Rows ``| `key` | default | paper | meaning |``; the message holds the row as it should be."""
    default, paper = load_config(), load_config(preset="paper")
    known = keys_of()
    for key, shown_default, shown_paper in re.findall(
        r"^\| `([a-z_.]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", text_of(page), re.MULTILINE
    ):
        if "." in key or key in known:
            assert (shown_default, shown_paper) == (shown(default, key), shown(paper, key)), (
                f"{page.name}: the row of {key} is out of date"
            )


def shown(config, key):
    return yaml.safe_dump(value_of(config, key), default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def test_every_setting_has_a_meaning():
    assert [key for key, meaning in keys_of().items() if not meaning] == []


def test_every_setting_is_on_a_page():
    pages = "".join(text_of(page) for page in (ROOT / "docs").rglob("*.md"))
    missing = [key for key in keys_of() if f"| `{key}` |" not in pages]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_named_in_passing_exist(page):
    groups = tuple({key.partition(".")[0] + "." for key in keys_of() if "." in key})
    names = {
        span.partition("=")[0]
        for span in spans(page)
        if span.startswith(groups) and not span.endswith((".yaml", ".json", ".jsonl", ".py", "."))
    }
    known = set(keys_of())
    assert {name for name in names if re.fullmatch(r"[a-z_.]+", name)} - known - {"prompt", "answer"} == set()


def test_generated_parts_are_up_to_date():
    """Run `python tools/generate_docs.py` when this fails."""
    generator = runpy.run_path(str(ROOT / "tools/generate_docs.py"))
    for page, text in generator["pages"]().items():
        assert page.read_text(encoding="utf-8") == text, (
            f"{page.name} is out of date; regenerate it with: {generator['COMMAND']}"
        )


def test_the_table_of_tasks_is_that_of_the_catalogue():
    rows = re.findall(
        r"^\| `((?:code|glue|superglue|vader)/[\w-]+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$",
        text_of(REFERENCE / "tasks.md"),
        re.MULTILINE,
    )
    expected = {}
    for name in list_tasks():
        spec = load_task(name)
        answers = ", ".join(spec.words) or f"a number from {spec.number.low:g} to {spec.number.high:g}"
        expected[name] = (answers, ", ".join(spec.metrics))
    assert {name: (answers, metrics) for name, answers, metrics in rows} == expected


def test_every_page_is_in_the_navigation_of_the_site():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(pages_of(site["nav"])) == sorted(pages)


def pages_of(entry):
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in pages_of(child)]


@pytest.mark.parametrize("method", METHODS)
def test_the_page_of_a_method_has_the_five_headings(method):
    page = ROOT / f"docs/methods/{method}.md"
    headings = re.findall(r"^## (.+)$", text_of(page), re.MULTILINE)
    assert tuple(headings) == METHOD_HEADINGS
    assert f"]({method}.md)" in text_of(ROOT / "docs/methods/index.md")


def test_the_names_of_the_package_are_described():
    page = text_of(REFERENCE / "python.md")
    public = [name for name in adjudge.__all__ if name != "__version__"]
    assert [name for name in public if f"adjudge.{name}" not in page and f"`{name}`" not in page] == []


def test_the_fields_of_a_task_file_are_all_described():
    page = text_of(REFERENCE / "task-files.md")
    sources = (FileSource, HubSource, VaderSource, GeneratedSource, TableSource)
    for part in (TaskSpec, *sources, Generation, LabelText, Procedure):
        assert [name for name in part.model_fields if f"`{name}`" not in page] == [], part.__name__
    assert [name for name in HOOKS if f"`{name}`" not in page] == []
    examples = blocks(REFERENCE / "task-files.md", "yaml")
    assert examples
    for example in examples:
        assert mistakes_of(read_tree(example, "task-files.md")) == []


def test_the_metrics_are_all_described():
    page = text_of(REFERENCE / "metrics.md")
    assert [name for name in METRICS if f"`{name}`" not in page] == []
    (row,) = re.findall(r"^\| `metrics` \| (.+) \|$", text_of(REFERENCE / "task-files.md"), re.MULTILINE)
    assert set(re.findall(r"\b[a-z][a-z0-9_]+\b", row.split(". ", 1)[1])) >= set(METRICS)


def test_the_tables_of_the_suites_are_those_of_the_averages():
    rows = re.findall(
        r"^\| ([\w-]+) \| (`(?:super)?glue/[^|]+) \| ([^|]+) \|$", text_of(REFERENCE / "metrics.md"), re.MULTILINE
    )
    documented = [(title, tasks.replace("`", "").split(", "), metrics.split(", ")) for title, tasks, metrics in rows]
    expected = [
        (m.title, list(m.parts), list(dict.fromkeys(x for p in m.parts.values() for x in p)))
        for s in SUITES
        for m in s.members
    ]
    assert documented == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_examples_use_what_exists(page):
    for body in blocks(page, "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("adjudge"):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            if isinstance(node, ast.Call) and _is_ours(node.func):
                function = getattr(adjudge, node.func.attr)
                keywords = {word.arg: None for word in node.keywords}
                inspect.signature(function).bind(*node.args, **keywords)
                settings = {word.replace("__", ".") for word in keywords if "__" in word}
                assert settings <= set(keys_of())


def _is_ours(function):
    return (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "adjudge"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_repository_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def anchors(page):
    """Return the anchors of a page's headings: lower case, no punctuation, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
