"""Formulae as MathML when the site is built, so that a reader needs neither a script nor a network."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Turn what `pymdownx.arithmatex` has marked into MathML."""
    html = BLOCK.sub(lambda found: f'<div class="formula">{_mathml(found[1], "block")}</div>', html)
    return INLINE.sub(lambda found: _mathml(found[1], "inline"), html)


def _mathml(latex: str, display: str) -> str:
    return convert(unescape(latex).strip(), display=display)
