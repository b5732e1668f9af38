"""Reading the YAML of a task: mappings, lists and text, nothing else, and never more than the file itself holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from adjudge.errors import TaskError

MOST_BYTES = 2**18
"""Bytes of a task file; a page of YAML has about 2,000."""

_DEEPEST = 20
"""Levels of mappings and lists in each other; a task has four."""


class _TextLoader(yaml.SafeLoader):
    """YAML in which every scalar is the text that was written, apart from null.

    YAML 1.1 would turn the answer words ``No`` and ``Yes`` into booleans and the label ``007`` into the number 7. Tags that make
    anything but text, lists and mappings are errors, and so are aliases: ten lines of them stand for a billion entries.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As in PyYAML, without aliases, and only so deep."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"'*{event.anchor}' repeats another part; write it out", event.start_mark
            )
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(
                None, None, f"more than {_DEEPEST} levels are nested", self.peek_event().start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in PyYAML, but a key that occurs twice is an error and not overwritten."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' occurs twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TextLoader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("str", "seq", "map", "null")
}


def read_tree(text: str, where: str) -> dict[str, Any]:
    """Read a task's YAML as a mapping, scalars as text. Raises TaskError that begins with `where` and names the line."""
    try:
        tree = yaml.load(text, Loader=_TextLoader)  # a SafeLoader: builds nothing but mappings, lists and text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise TaskError(f"{where}{line}: is not valid YAML: {what}.") from None
    except (
        ValueError,
        OverflowError,
    ) as error:  # PyYAML lets these through: an escape that is no character, a number without end
        raise TaskError(f"{where}: is not valid YAML: {error}.") from None
    if not isinstance(tree, dict):
        raise TaskError(f"{where}: a task is a mapping of keys (name, title, fields, …), and this is not one.")
    return tree


def read_task_file(path: Path) -> dict[str, Any]:
    """Read a task file. Raises TaskError when it cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise TaskError(f"{path}: is larger than {MOST_BYTES // 2**10} KiB, which no task file is.")
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise TaskError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or what is not UTF-8
        if isinstance(error, UnicodeDecodeError):
            raise TaskError(f"{path}: is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
        raise TaskError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return read_tree(text, str(path))
