"""Publish a judge on the hub: its weights, tokenizer, judge.json and model card."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

from adjudge.errors import AdjudgeError, ConfigError, ModelError, RunError
from adjudge.models.sources.bundled import BUNDLED
from adjudge.models.sources.hub import hub_id_of, split_hub_id
from adjudge.runs.folder import Run, read_json
from adjudge.runs.portable import FILE, is_portable, name_model
from adjudge.runs.work import WEIGHTS
from adjudge.system.console import note
from adjudge.system.files import write_json
from adjudge.system.hub import connection_problem, one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ADAPTER = "adapter_config.json"


def push_judge(
    source: str | Path, repo: str, *, public: bool = False, base: str | None = None, revision: str | None = None
) -> str:
    """Upload the judge of a run folder, or one that left its run, and return the address of the commit.

    The repository is created where it is missing, private unless `public`. `base` is the hub id of the base model where
    the run has it in a folder of this machine. Raises ConfigError for a wrong id, RunError for a run without trained
    weights, or whose base nobody else can find, and ModelError when the hub refuses or cannot be reached.
    """
    check_name(repo)
    folder = part_to_push(source)
    with tempfile.TemporaryDirectory(prefix="adjudge-") as temporary:
        staged = copytree(folder, Path(temporary) / "judge")
        name_base(staged, base)
        return _upload(staged, repo, public=public, revision=revision)


def check_name(repo: str) -> None:
    """Raise ConfigError unless `repo` is written ``owner/name``."""
    hub_id = split_hub_id(repo)
    if hub_id is None or hub_id[1] is not None:
        raise ConfigError(f"'{repo}' is no repository: write owner/name.")


def check_push(repo: str, base: str | None) -> None:
    """Find out before training what would keep a judge on top of `base` from being published in `repo`.

    `base` is the model under an adapter, None for weights that need no other model. Raises ConfigError for a wrong id,
    RunError for a base that nobody else can find, and ModelError when the hub cannot be reached, knows no token, or the
    token may not write to `repo`.
    """
    check_name(repo)
    if base is not None and base not in BUNDLED and hub_id_of(base) is None:
        raise RunError(
            f"the base model '{base}' is a folder of this machine, which nobody else has. Train without --push-to-hub, "
            f"and then name the same model on the hub: adjudge push {repo} --run DIR --base owner/name."
        )
    with _hub_errors(repo, "Nothing was trained.") as api:
        known = api.whoami()
    owner = repo.partition("/")[0]
    owners = {str(known.get("name")), *(str(each.get("name")) for each in known.get("orgs", ()))}
    if owner not in owners:
        raise ModelError(
            f"the token is that of {known.get('name')}, which may not write to {repo}: name a repository of "
            f"{' or '.join(sorted(owners))}."
        )
    if known.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ModelError(f"the token may only read: publishing to {repo} needs one with the right to write.")


def push_trained(folder: str | Path, repo: str) -> str:
    """Publish a run that has just finished, and return the address of the commit.

    Raises ModelError with the command to repeat: the run itself is complete.
    """
    try:
        return push_judge(folder, repo)
    except AdjudgeError as error:
        again = shlex.join(["adjudge", "push", repo, "--run", str(folder)])
        raise ModelError(
            f"the run in {folder} is complete, but was not published: {error}\nPublish it with: {again}"
        ) from None


def part_to_push(source: str | Path) -> Path:
    """Return the folder of trained weights. Raises RunError when there is none, or it has no judge.json."""
    folder = Path(source)
    if is_portable(folder):
        return folder
    run = Run.open(folder)
    if run.state != "complete":
        raise RunError(f"{folder} is {run.state}; a run is published when it is complete.")
    for part in WEIGHTS:
        if (folder / part / FILE).is_file():
            return folder / part
    if any((folder / part).is_dir() for part in WEIGHTS):
        raise RunError(f"{folder} was made by an older adjudge: judge it again with `adjudge evaluate --run`.")
    raise RunError(f"{folder} trained nothing, so it has no weights to publish.")


def name_base(folder: Path, base: str | None) -> None:
    """Write the base model's hub id into a judge's files.

    Raises RunError where nobody else could find the base, and ConfigError for a `base` that is no hub id.
    """
    record: dict[str, Any] = read_json(folder / FILE)
    underneath = record.get("base") or {}
    if base is None:
        if underneath and not (folder / "config.json").is_file() and underneath.get("hub") is None:
            raise RunError(
                f"the base model is the folder '{underneath.get('name', 'unknown')}' of this machine, which nobody "
                "else has. Name the same model on the hub with --base owner/name."
            )
        return
    hub_id = split_hub_id(base)
    if hub_id is None:
        raise ConfigError(f"'{base}' is no model of the hub: write --base owner/name, or owner/name@commit.")
    underneath |= {"name": base, "hub": hub_id[0], **({"revision": hub_id[1]} if hub_id[1] else {})}
    write_json(folder / FILE, {**record, "base": underneath, "settings": name_model(record["settings"], base)})
    if (folder / ADAPTER).is_file():
        adapter = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        write_json(folder / ADAPTER, {**adapter, "base_model_name_or_path": hub_id[0], "revision": hub_id[1]})


def _upload(folder: Path, repo: str, *, public: bool, revision: str | None) -> str:
    with _hub_errors(repo, "Nothing was published.") as api:
        note(f"publishing to {repo} ({'public' if public else 'private'}) …")
        api.create_repo(repo, private=not public, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, commit_message="Upload a judge trained with adjudge"
        )
    return str(commit.commit_url)


@contextmanager
def _hub_errors(repo: str, effect: str) -> Iterator[HfApi]:
    """Yield the hub's client; raise its errors as ModelError with what to do.

    `effect` says what did not happen.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"the hub is switched off (HF_HUB_OFFLINE). {effect}")
    if problem := connection_problem(constants.ENDPOINT, ask_proxy=True):
        raise ModelError(f"the hub cannot be reached ({constants.ENDPOINT}: {problem}). {effect}")
    try:
        yield HfApi(endpoint=constants.ENDPOINT)
    except LocalTokenNotFoundError:
        raise ModelError("no token for the hub is known here: log in with `hf auth login`, or set HF_TOKEN.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        advice = {
            401: "The token is missing, wrong or expired: log in with `hf auth login`, or set HF_TOKEN.",
            403: f"The token may not write to {repo}: it needs the right to write, or name a repository of your own.",
        }.get(status or 0, "")
        raise ModelError(f"the hub refused ({one_line(error)}). {effect} {advice}".rstrip()) from None
    except OfflineModeIsEnabled:
        raise ModelError(f"the hub is switched off (HF_HUB_OFFLINE). {effect}") from None
    except (OSError, HTTPError, RuntimeError) as error:  # the client raises a RuntimeError for a file's failed upload
        reasons = [one_line(each).rstrip(".") for each in (error, error.__cause__) if each is not None]
        raise ModelError(f"the hub broke off: {': '.join(reasons)}. {effect} Give the same command again.") from None
