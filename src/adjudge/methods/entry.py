"""The facts about a method that are known without importing it, and the entries of each kind."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adjudge.config.methods import own_group

if TYPE_CHECKING:
    from adjudge.methods.base import Method


@dataclass(frozen=True, slots=True)
class Entry:
    """Facts about a method, available without importing it."""

    name: str
    summary: str
    source: str
    """The paper it is from."""
    module: str
    settings: tuple[str, ...]
    """Groups of `Config` it reads, besides ``data``, ``evaluation`` and ``runtime``; ``calibration`` if it trains."""
    trains: bool = True
    rows: Literal["none", "demonstrations", "all"] = "all"
    """The rows it learns from: none, the demonstrations in its prompt, or all training rows."""
    model: str = "model"
    """The setting that names its model; "" for a method without one."""
    policy_if: tuple[str, tuple[str, ...]] | None = None
    """Setting and values with which it prompts the policy (``model``), in place of a model of its own or beside it."""
    trains_adapter: bool = True
    """True if its LoRA layers can start from a run (``init``) and learn several tasks at once."""
    analysis_before: bool = True
    """True if it allows ``prompt.analysis=before``."""
    numbers: bool = True
    """True if it takes tasks that are answered with a number."""
    lists_answers: bool = False
    """True if it weighs all answers of a label task against each other, so that these must be few."""
    takes_sets: bool = False
    """True if it learns and judges sets of labels (`several`) in its own way, whichever that is."""
    rates_labels: bool = False
    """True if its judge rates every label, whatever ``evaluation.decode`` says."""
    explains: bool = False
    """True if its demonstrations have explanations, as ``prompt.explanations`` says."""
    stepwise: bool = False
    """True if it takes the steps of a task's procedure before each judgement."""
    writes: str = "instructions"
    """What its writer writes, where ``settings`` has one."""
    takes_api: bool = False
    """True if its model may be one behind an API (``api:NAME``), of which it needs no weights."""
    many_questions: bool = False
    """True if it asks its model several questions per row; `Method.outgoing` then says how many."""
    in_seconds: bool = False
    """True if it takes seconds, as long as it does not prompt the policy."""
    needs: tuple[str, ...] = ()
    """Settings that must be set: without them it has nothing to work with."""
    apart: tuple[tuple[str, str, str], ...] = ()
    """Forms that do not bear its name: setting, value ("" for any that is set), and what it is then."""

    def load(self) -> Method:
        """Import the method (and with it torch)."""
        from adjudge.methods.passes import in_passes

        method: Method = importlib.import_module(self.module).METHOD
        return method if self.takes_sets else in_passes(method)


def adapter_entry(name: str, summary: str, source: str, *, samples: bool = True, **others: Any) -> Entry:
    """Return the entry of an adapter method in ``methods/NAME.py``, which reads the settings group NAME."""
    settings = ("prompt", "answer", "lora", own_group(name), "checkpoint", "init", *(("guard",) if samples else ()))
    return Entry(name, summary, source, f"adjudge.methods.{own_group(name)}", settings, **others)


def pairs_entry(name: str, summary: str, source: str, **others: Any) -> Entry:
    """Return the entry of an adapter method that learns which of two label answers is right."""
    return adapter_entry(name, summary, source, analysis_before=False, numbers=False, lists_answers=True, **others)


def prompting_entry(name: str, summary: str, source: str, *, groups: tuple[str, ...] = (), **others: Any) -> Entry:
    """Return the entry of a method in ``methods/prompting/NAME.py``, which trains nothing.

    It reads the settings of `groups` too.
    """
    module = f"adjudge.methods.prompting.{own_group(name)}"
    settings = ("prompt", "answer", "api", *groups)
    return Entry(name, summary, source, module, settings, trains=False, trains_adapter=False, takes_api=True, **others)


def search_entry(name: str, summary: str, source: str, *, helped: bool = True, **others: Any) -> Entry:
    """Return the entry of a method in ``methods/prompting/NAME.py`` which sets something on training rows.

    A writer may be what helps it.
    """
    group = own_group(name)
    settings = ("prompt", "answer", "api", *(("writer",) if helped else ()), group)
    return Entry(
        name,
        summary,
        source,
        f"adjudge.methods.prompting.{group}",
        settings,
        trains_adapter=False,
        takes_api=True,
        **others,
    )


def encoder_entry(name: str, summary: str, source: str, *, checkpoints: bool = True, **others: Any) -> Entry:
    """Return the entry of an encoder method in ``methods/NAME.py``; its settings name its model."""
    group = own_group(name)
    settings = (group, *(("checkpoint",) if checkpoints else ()))
    module, model = f"adjudge.methods.{group}", f"{group}.model"
    others = {"lists_answers": True, **others}
    return Entry(name, summary, source, module, settings, model=model, trains_adapter=False, **others)


def floor_entry(name: str, summary: str, source: str, model: str = "", **others: Any) -> Entry:
    """Return the entry of a method in ``methods/floors/NAME.py``: a regression on untrained features."""
    group = own_group(name)
    module = f"adjudge.methods.floors.{group}"
    others = {"takes_sets": True, "in_seconds": True, **others}
    return Entry(name, summary, source, module, (group,), model=model, trains_adapter=False, **others)
