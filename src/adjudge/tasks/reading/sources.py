"""Load a task's rows from a data folder (official or hub layout), the cache, a table or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adjudge.errors import DataError, nearest
from adjudge.system.console import warn
from adjudge.system.hub import hub_reason
from adjudge.tasks.reading.bad_rows import OnBadRows
from adjudge.tasks.reading.generated import load_generated
from adjudge.tasks.reading.hooks import hook_named
from adjudge.tasks.reading.hub import load_from_hub
from adjudge.tasks.reading.located import located
from adjudge.tasks.reading.rows import LABELLED, Row, check_columns, text_cells, text_of, to_example, width_error
from adjudge.tasks.reading.table import load_table, read_table
from adjudge.tasks.reading.table_files import arrow_rows
from adjudge.tasks.reading.table_rows import Columns
from adjudge.tasks.reading.text_files import Line, read_json_lines, read_tab_separated
from adjudge.tasks.reading.vader import FILES, load_vader, vader_folder
from adjudge.tasks.spec import FileSource, HubSource, TaskSpec
from adjudge.types import Example


def load_split(
    spec: TaskSpec, split: str, data_dir: str | Path | None = None, bad_rows: OnBadRows = "error"
) -> list[Example]:
    """Return the checked rows of one split, in file order.

    The first available source is used: `data_dir` (the official download layout, else the hub's Parquet files), the
    fetched ratings, rows that are made, the user's table, the hub. A table that is gone from its path is looked for by
    name in `data_dir`. `bad_rows` is for the rows of a user's table: an error for the first, or "drop", which lists
    them and returns `KeptRows`.

    Raises DataError when no source has the rows (listing every path tried and what to do), or when a row does not fit
    the task (with file, line and field).
    """
    source = located(spec, data_dir, split=split)
    if data_dir is not None and (source.files or source.hub):
        return _from_folder(spec, split, Path(data_dir))
    if source.vader is not None:
        return load_vader(spec, source.vader, split)
    if source.generated is not None:
        return load_generated(spec, source.generated, split)
    if source.table is not None:
        return load_table(spec, source.table, split, bad_rows)
    if source.hub is not None:
        return _from_hub(spec, source.hub, split)
    raise DataError(f"{spec.name} is read from a folder. Name the folder with --data-dir{_folder_hint(spec, split)}.")


def split_files(spec: TaskSpec, split: str, data_dir: str | Path | None = None) -> list[Path]:
    """Return the existing files which `load_split` reads; none when the rows come from the hub.

    Raises DataError when one of a numbered set of files is missing.
    """
    source = located(spec, data_dir, must_exist=False)
    if data_dir is not None and (source.files or source.hub):
        return _find_files(spec, split, Path(data_dir))[0]
    paths: list[Path] = []
    if source.vader is not None:
        paths = [vader_folder() / FILES[source.vader.part]]
    elif source.table is not None:
        file = source.table.test if split == "test" else source.table.dev if split == "dev" else None
        paths = [Path(file or source.table.train)]
    return [path for path in paths if path.is_file()]


def _from_folder(spec: TaskSpec, split: str, data_dir: Path) -> list[Example]:
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: there is no such folder (--data-dir).")
    paths, tried = _find_files(spec, split, data_dir)
    files, hub = spec.source.files, spec.source.hub
    if paths and files is not None and paths[0].suffix != ".parquet":
        return _from_file(spec, files, split, paths[0])
    if paths and hub is not None:
        return _from_shards(spec, hub, split, paths)
    if not tried:
        raise DataError(f"{spec.name} has no split '{split}'.{nearest(split, _splits(spec))}")
    lines = "".join(f"\n  {path}" for path in tried)
    raise DataError(f"{spec.name}: the {split} rows are not in --data-dir {data_dir}. Tried:{lines}")


def _find_files(spec: TaskSpec, split: str, data_dir: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of a split in `data_dir`, and every path that was tried.

    The files are one in the official layout, or the Parquet files of the hub's layout.
    """
    tried: list[Path] = []
    files, hub = spec.source.files, spec.source.hub
    if files is not None:
        file = files.splits.get(split)
        for path in _candidates(data_dir, files.folder, file) if file is not None else ():
            tried.append(path)
            if path.is_file():
                return [path], tried
    if hub is not None and split in hub.splits:
        config = hub.config_of(split)
        for folder in _folders(data_dir, _with_config(hub.path.rsplit("/", 1)[-1], config) if config else hub.path):
            tried.append(folder / f"{hub.splits[split]}-*.parquet")
            shards = _shards(folder, hub.splits[split])
            if shards:
                return shards, tried
    return [], tried


def _with_config(path: str, config: str | None) -> str:
    return f"{path}/{config}" if config else path


def _folders(data_dir: Path, folder: str) -> list[Path]:
    """Return the folders to try for `folder`: its full path and its last part below `data_dir`.

    `data_dir` itself is tried too when it has the name of the last part.
    """
    last = folder.rsplit("/", 1)[-1]
    folders = [data_dir / folder, data_dir / last]
    return [*folders, data_dir] if data_dir.name == last else folders


def _candidates(data_dir: Path, folder: str, file: str) -> list[Path]:
    """Return the paths where a file of the official layout may be."""
    paths = []
    for parent in _folders(data_dir, folder):
        # Not resolve(): the sibling of a linked folder is the sibling of the link.
        path = parent
        for part in Path(file).parts:
            path = path.parent if part == ".." else path / part
        paths.append(path)
    return list(dict.fromkeys(paths))


def _from_file(spec: TaskSpec, files: FileSource, split: str, path: Path) -> list[Example]:
    rename = files.rename.get(split, {})
    if path.suffix != ".jsonl":
        return _examples(spec, split, _tab_separated_rows(spec, files, split, path), path, files.drop_labels)
    rows = [
        Row(f"{path}:{number}", f"{path.name}:{number}", {rename.get(key, key): value for key, value in cells.items()})
        for number, _, cells in read_json_lines(path)
    ]
    return _examples(spec, split, rows, path, files.drop_labels)


def _tab_separated_rows(spec: TaskSpec, files: FileSource, split: str, path: Path) -> list[Row]:
    lines = read_tab_separated(path)
    columns = list(lines.pop(0).cells) if files.header or split in files.headed else list(files.columns)
    columns = [files.rename.get(split, {}).get(column, column) for column in columns]
    if not lines:
        raise DataError(f"{path}: the file has a header line and no rows.")
    labelled = split in LABELLED
    check_columns(path, columns, [*spec.fields.values(), *(spec.gold_columns if labelled else ())])
    # Rows without gold answers are judged for a submission, which needs every row.
    allowed = files.broken_share * len(lines) if labelled else 0
    rows, broken = [], list[DataError]()
    for line in lines:
        try:
            cells = _cells(spec, path, line, columns)
        except DataError as error:
            broken.append(error)
            if len(broken) > allowed:
                raise broken[0] from None
            continue
        rows.append(Row(f"{path}:{line.number}", f"{path.name}:{line.number}", cells))
    if broken:
        warn(
            f"{path}: {len(broken)} of {len(lines):,} rows are broken and dropped, as is usual for this file. "
            f"First: {broken[0]}"
        )
    return rows


def _cells(spec: TaskSpec, path: Path, line: Line, columns: Sequence[str]) -> dict[str, str]:
    """Return the cells of a row by column.

    Raises DataError when the number of cells is wrong or a required text is empty.
    """
    if len(line.cells) != len(columns):
        raise width_error(path, line, columns)
    cells = dict(zip(columns, line.cells, strict=True))
    for field, column in spec.fields.items():
        text_of(f"{path}:{line.number}", field, column, cells[column], optional=field in spec.optional)
    return cells


def _examples(
    spec: TaskSpec, split: str, rows: Sequence[Row], origin: Path, drop_labels: Sequence[str] = ()
) -> list[Example]:
    """Return rows with the official files' columns as checked examples, after applying the task's hook."""
    if spec.source.hook is not None:
        rows = hook_named(spec.source.hook)(rows, split)
    labelled = split in LABELLED
    kept, dropped = [], 0
    for row in rows:
        cells = text_cells(spec, row, labelled=labelled)
        if spec.label is not None and cells.get(spec.label, "").strip() in drop_labels:
            dropped += 1
            continue
        kept.append(to_example(spec, row.where, row.id, cells, labelled=labelled))
    if dropped:
        warn(
            f"{origin}: {dropped} of {len(rows):,} rows have no gold answer ({', '.join(drop_labels)}) and are dropped."
        )
    return kept


def _shards(folder: Path, split: str) -> list[Path]:
    """Return the Parquet files of one split, in order.

    Raises DataError when one of a numbered set is missing.
    """
    single = folder / f"{split}.parquet"
    shards = sorted(folder.glob(f"{split}-?????-of-?????.parquet"))
    if not shards:
        return [single] if single.is_file() else []
    count = int(shards[0].stem.rsplit("-", 1)[-1])
    names = {path.name for path in shards}
    for number in range(count):
        wanted = f"{split}-{number:05d}-of-{count:05d}.parquet"
        if wanted not in names:
            raise DataError(f"{folder / wanted}: the file is missing; the {split} rows are in {count} files.")
    return [folder / f"{split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]


def _from_shards(spec: TaskSpec, hub: HubSource, split: str, shards: Iterable[Path]) -> list[Example]:
    rows: list[Row] = []
    for path in shards:
        columns, table = read_table(path)
        named = (Row(f"{path}: row {row.line}", f"{path.name}:{row.line}", row) for row in table)
        rows += _hub_rows(spec, hub, split, rows=named, columns=columns, origin=path)
    return _examples(spec, split, rows, origin=path)


def _hub_rows(
    spec: TaskSpec, hub: HubSource, split: str, *, rows: Iterable[Row], columns: Columns, origin: Path
) -> list[Row]:
    """Return the hub's rows with the columns and raw labels of the official files."""
    rename = hub.rename.get(split, {})
    actual = {rename.get(column, column): column for column in columns.places}
    source_of = {column: hub.columns.get(name, column) for name, column in (*spec.fields.items(), *spec.tags.items())}
    labelled = split in LABELLED
    if spec.source.hook is None:  # a hook creates its own columns
        check_columns(origin, actual, [source_of[column] for column in spec.fields.values()])
    if labelled and spec.label is not None and hub.label is not None:
        check_columns(origin, actual, [hub.label])
    renamed = []
    for row in rows:
        hub_cells = {name: row.cells[column] for name, column in actual.items()}
        cells = hub_cells | {column: hub_cells[name] for column, name in source_of.items() if name in hub_cells}
        if spec.label is not None and hub.label is not None:
            cells[spec.label] = _hub_label(hub, row.where, hub_cells.get(hub.label, ""), labelled)
        renamed.append(Row(row.where, row.id, cells))
    return renamed


def _hub_label(hub: HubSource, where: str, raw: str, labelled: bool) -> str:
    """Return the raw label of a hub's integer, or empty text for a missing gold answer.

    Raises DataError when a required label is missing or unknown.
    """
    if raw in ("", "-1", "-1.0") and not labelled:
        return ""
    if not raw:
        raise DataError(f"{where}: the label column '{hub.label}' is empty.")
    if not hub.labels:
        return raw
    known = {str(index): label for index, label in enumerate(hub.labels)}
    if raw not in known:
        meaning = ", ".join(index if index == label else f"{index} ({label})" for index, label in known.items())
        hint = " -1 means that the row has no gold answer." if raw == "-1" else ""
        raise DataError(f"{where}: '{raw}' in column '{hub.label}' is not a label; there is: {meaning}.{hint}")
    return known[raw]


def _from_hub(spec: TaskSpec, hub: HubSource, split: str) -> list[Example]:
    if split not in hub.splits:
        if split in _splits(spec):
            raise DataError(
                f"{spec.name}: the hub has no {split} rows with gold answers. "
                f"Name a folder with --data-dir{_folder_hint(spec, split)}."
            )
        raise DataError(f"{spec.name} has no split '{split}'.{nearest(split, _splits(spec))}")
    columns, table = arrow_rows(_load_dataset(spec, hub, split).with_format("arrow")[:])
    name = hub.splits[split]
    origin = _with_config(hub.path, hub.config_of(split))
    named = (Row(f"{origin} {name}: row {row.line}", f"{name}:{row.line}", row) for row in table)
    rows = _hub_rows(spec, hub, split, rows=named, columns=columns, origin=Path(origin))
    return _examples(spec, split, rows, Path(origin))


def _load_dataset(spec: TaskSpec, hub: HubSource, split: str) -> Any:
    try:
        return load_from_hub(hub.path, hub.config_of(split), hub.revision, hub.splits[split])
    except Exception as error:  # the hub's client raises errors of many libraries; the message keeps the reason
        raise DataError(
            f"{spec.name}: cannot get the {split} rows from the hub ({hub.path}, {hub.config_of(split)}): "
            f"{hub_reason(error, 'data set')}\n"
            "Go online, or download the official folder and name it with --data-dir"
            f"{_folder_hint(spec, split)}."
        ) from None


def _splits(spec: TaskSpec) -> list[str]:
    files, hub = spec.source.files, spec.source.hub
    return list(dict.fromkeys([*(files.splits if files else ()), *(hub.splits if hub else ())]))


def _folder_hint(spec: TaskSpec, split: str) -> str:
    files = spec.source.files
    return f" (DIR/{files.folder}/{files.splits[split]})" if files and split in files.splits else ""
