"""Read the YAML of a task: only mappings, lists and text.

Content that expands beyond the file's own size is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from adjudge.errors import TaskError

MOST_BYTES = 2**18
"""Largest size of a task file in bytes; a page of YAML has about 2,000."""

_MOST_LEVELS = 20
"""Deepest nesting of mappings and lists; a task has four levels."""


class _TextLoader(yaml.SafeLoader):
    """A loader that keeps every scalar except null as the text in the file.

    YAML 1.1 would turn the answer words ``No`` and ``Yes`` into booleans and the label ``007`` into the number 7. Tags
    for anything other than text, lists and mappings are errors. Aliases are errors too: ten lines of them can stand for
    a billion entries.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node as PyYAML does, but refuse aliases and deep nesting."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"'*{event.anchor}' repeats another part; write it out", event.start_mark
            )
        self._depth += 1
        if self._depth > _MOST_LEVELS:
            raise yaml.composer.ComposerError(
                None, None, f"more than {_MOST_LEVELS} levels are nested", self.peek_event().start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping as PyYAML does, but refuse a key that occurs twice."""
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
    """Return a task's YAML as a mapping with scalars as text.

    Raises TaskError, which begins with `where` and names the line.
    """
    try:
        tree = yaml.load(text, Loader=_TextLoader)  # a SafeLoader, which builds only mappings, lists and text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise TaskError(f"{where}{line}: is not valid YAML: {reason}.") from None
    # PyYAML does not catch these: an escape of an invalid character, a number with too many digits.
    except (ValueError, OverflowError) as error:
        raise TaskError(f"{where}: is not valid YAML: {error}.") from None
    if not isinstance(tree, dict):
        raise TaskError(f"{where}: a task must be a mapping of keys (name, title, fields, …), and this is not one.")
    return tree


def read_task_file(path: Path) -> dict[str, Any]:
    """Return a task file as a mapping with scalars as text. Raises TaskError when it cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise TaskError(f"{path}: is larger than {MOST_BYTES // 2**10} KiB, too large for a task file.")
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise TaskError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or bytes that are not UTF-8
        if isinstance(error, UnicodeDecodeError):
            raise TaskError(f"{path}: is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
        raise TaskError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return read_tree(text, str(path))
