"""The page: one HTML file that needs nothing else.

Text of the data is hostile here: the template escapes whatever is put in, but for what :func:`_trusted` lets through,
which is our own, and a content security policy lets no script run but the two that the page brings.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

TEMPLATE: Final = "report.html.jinja"

_PAGE_SCRIPT: Final = """
(function () {
  var figure = JSON.parse(document.getElementById("plane-data").textContent);
  var place = document.getElementById("plane");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function colours() {
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    var card = style.getPropertyValue("--card").trim();
    return {"font.color": ink, "xaxis.gridcolor": line, "yaxis.gridcolor": line, "hoverlabel.bgcolor": card,
            "hoverlabel.font.color": ink, "hoverlabel.bordercolor": line};
  }
  var options = {displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]};
  Plotly.newPlot(place, figure.data, figure.layout, options).then(function () { Plotly.relayout(place, colours()); });
  dark.addEventListener("change", function () { Plotly.relayout(place, colours()); });
})();
"""


def render_page(fields: Mapping[str, Any], plane_json: str) -> str:
    """
    :param fields: What the template shows; texts are escaped.
    :param plane_json: The figure of plotly, as JSON.
    """
    template = _environment().get_template(TEMPLATE)
    fields = {
        **fields,
        "plane_json": _inside_script(plane_json),
        "plotly_script": _plotly_script(),
        "page_script": _PAGE_SCRIPT,
        "script_hashes": " ".join(f"'{_hash(script)}'" for script in (_plotly_script(), _PAGE_SCRIPT)),
    }
    size = len(template.render({**fields, "megabytes": "0.0"}).encode("utf-8", "backslashreplace"))
    return template.render({**fields, "megabytes": f"{size / 1e6:.1f}"})


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["trusted"] = _trusted
    return environment


def _trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


@cache
def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    # Browsers read line ends as \n, and the hash is of what they read.
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}"


def _inside_script(text: str) -> str:
    """JSON that no text in it can end the script element of."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
