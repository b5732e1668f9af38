"""The writer of a run: the model that ``writer.model`` names, or the judging model itself."""

from __future__ import annotations

from adjudge.models.chat_api import is_api
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.writer import ApiSource, LocalSource, Source, Writer
from adjudge.runs.folder import WRITER_LOG, Run


def writer_of(run: Run, policy: Policy | None) -> Writer:
    """Return the writer of a run, which logs into its folder.

    `policy` is the judging model, or None behind an API.
    """
    config = run.config
    name = config.writer.model or config.model
    source: Source
    if is_api(name):
        source = ApiSource(name, config.api)
    else:
        if policy is None or name != config.model:
            policy = load_policy(config.model_copy(update={"model": name}))
        source = LocalSource(policy, config.prompt)
    return Writer(source, run.folder / WRITER_LOG)
