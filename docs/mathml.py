"""mkdocs hook: turn the TeX that arithmatex marked into MathML, as the site is built.

Browsers draw MathML themselves, so that the pages need no script, font or network for
their equations; TeX that does not parse stops the build.
"""

import html
import re

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError

_CONVERTER = LatexToMathML(fancy_error=False)
_MARKED = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL
)


def on_page_content(content, page, **_):
    def to_mathml(match):
        tag, tex = match.group(1), html.unescape(match.group(2))
        try:
            return _CONVERTER.convert_with_local_state(tex, displaystyle=tag == "div")
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: {error} in {tex!r}") from error

    return _MARKED.sub(to_mathml, content)
