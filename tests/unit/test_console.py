"""Notes, warnings and progress for the user."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from adjudge.system import console

STRANGE = "[bold]reviews[/bold].csv:smile: [/x] 100 %"


@pytest.mark.parametrize("say", [console.note, console.warn])
def test_text_is_printed_unchanged_to_standard_error(say, capsys: pytest.CaptureFixture[str]) -> None:
    say(STRANGE)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{'warning: ' if say is console.warn else ''}{STRANGE}\n"


def test_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_terminal_the_bar_prints_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.progress(STRANGE, 40) as bar:
        bar.advance(16, loss=0.123456)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(console, "QUIET_EVERY_S", 0.0)
        bar.advance(16, loss=0.123456, word="Yes")
    assert f"{STRANGE}: 32 of 40 after 0 s  loss 0.123  word Yes\n" in capsys.readouterr().err


def test_in_a_terminal_the_bar_shows_the_title_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        console,
        "console",
        Console(file=screen, force_terminal=True, width=200, soft_wrap=True, highlight=False, emoji=False),
    )
    with console.progress(STRANGE, 4) as bar:
        bar.advance(4, loss=0.5, note="[/y]")
    assert STRANGE in screen.getvalue()
    assert "loss 0.5" in screen.getvalue()
    assert "[/y]" in screen.getvalue()
    assert "4/4" in screen.getvalue()


def test_an_error_inside_a_bar_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), console.progress("x", 1):
        raise KeyError("inside")
