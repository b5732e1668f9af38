"""Markdown extension of the documentation's site: write formulas as MathML, which browsers draw without a script.

`$…$` is a formula in a line, `$$…$$` in paragraphs of its own is one on a line of its own, as on code hosts.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.blockprocessors import BlockProcessor
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

INLINE = r"(?<![\\$\w])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?![\w$])"
BLOCK = re.compile(r"\A\$\$(.+)\$\$\Z", re.DOTALL)


def mathml(formula: str, display: str = "inline") -> str:
    """Return a formula in LaTeX as MathML, with the space after log that typesetters leave."""
    return convert(formula.replace(r"\log ", r"\log\,"), display=display)


class InlineFormula(InlineProcessor):
    """Formula in a line of text."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        """Return the formula as MathML, kept from further processing, and where it stood."""
        return self.md.htmlStash.store(mathml(m.group(1))), m.start(0), m.end(0)


class BlockFormula(BlockProcessor):
    """Formula on a line of its own."""

    def test(self, parent: ElementTree.Element, block: str) -> bool:
        """Return whether the block is one formula."""
        return BLOCK.match(block.strip()) is not None

    def run(self, parent: ElementTree.Element, blocks: list[str]) -> None:
        """Put the formula into the page, in a box that scrolls when the line is too narrow."""
        formula = BLOCK.match(blocks.pop(0).strip())
        assert formula is not None
        box = ElementTree.SubElement(parent, "div", {"class": "formula"})
        box.text = self.parser.md.htmlStash.store(mathml(formula.group(1), "block"))


class Formulas(Extension):
    """Both kinds of formulas."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the patterns: after code in backticks (190) and before escapes (180)."""
        md.inlinePatterns.register(InlineFormula(INLINE, md), "formula", 185)
        md.parser.blockprocessors.register(BlockFormula(md.parser), "formula", 85)


def makeExtension() -> Formulas:
    """Return the extension; Markdown calls this."""
    return Formulas()
