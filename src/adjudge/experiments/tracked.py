"""A run that reports to the trackers its settings name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adjudge.config import Config, parse_config
from adjudge.errors import AdjudgeError
from adjudge.methods.settings import unread_groups
from adjudge.runs.folder import Run
from adjudge.runs.names import shown_name
from adjudge.runs.tasks import joint_name
from adjudge.runs.tracking import Tracking
from adjudge.system.console import warn
from adjudge.tasks.spec import TaskSpec

WITHOUT_FILES = ("tensorboard",)
"""Trackers that keep no files, so that no report is made for them."""


@contextmanager
def tracked(run: Run, specs: Sequence[TaskSpec]) -> Iterator[None]:
    """Report the run to its trackers from here to the end of the block. Raises nothing of its own."""
    settings = run.config.tracking
    if not settings.report_to:
        yield
        return
    group = f"{joint_name([spec.name for spec in specs])}-{shown_name(run.config.method, len(specs))}"
    run.tracking = Tracking(
        run.folder,
        settings.report_to,
        project=settings.project,
        run_name=settings.run_name or f"{group}-seed{run.config.seed}",
        group=group,
        resumed=run.resumed,
        unread=unread_groups(run.config),
    )
    try:
        yield
    except BaseException as error:
        run.tracking.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    run.tracking.end("complete", _report(run.folder) if set(settings.report_to) - set(WITHOUT_FILES) else ())


def with_trackers(config: Config, report_to: str | None) -> Config:
    """Return a run's settings with these trackers, with commas, in place of its own. Raises ConfigError."""
    tree = config.model_dump(mode="json")
    return parse_config({**tree, "tracking": {**tree["tracking"], "report_to": report_to}})


def _report(folder: Path) -> list[Path]:
    """Write the run's report, and return it; nothing, with a warning, when it cannot be written."""
    from adjudge.report.html import render_report

    try:
        return [render_report([folder], folder / "report.html")]
    except (AdjudgeError, OSError) as error:
        warn(f"the trackers get no report: {error}")
        return []
