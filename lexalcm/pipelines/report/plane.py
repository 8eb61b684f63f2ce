"""Sentences of the sample in a plane, by language: as points to point at, by plotly, and as a picture.

Shapes: N sentences, S special concepts.
"""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from lexalcm.pipelines.report.bank import Bank, shortened
from lexalcm.pipelines.report.draw import COLOURS, OTHERS, RED, SPECIAL, WIDE, Picture, picture, points
from lexalcm.pipelines.report.neighbours import SpecialFigures
from lexalcm.pipelines.report.projection import project

_HOVER_CHARACTERS: Final = 300
_HOVER_LINE: Final = 60
_REST: Final = "other languages"


@dataclass(frozen=True)
class Plane:
    """Both forms of the picture."""

    figure: str
    """JSON of a plotly figure; all text of the data in it is escaped, for plotly takes it for HTML."""

    picture: Picture


def draw_plane(bank: Bank, special: SpecialFigures | None, *, num_points: int, method: str, seed: int) -> Plane:
    """Projects the first ``num_points`` sentences of the bank, and the special concepts with them."""
    import plotly.graph_objects as go

    vectors = bank.vectors[:num_points]
    sentences = bank.sentences[:num_points]
    names = [] if special is None else special.names
    together = vectors if special is None else np.concatenate([vectors, special.vectors])
    plane, kept = project(together, method, seed=seed)
    hover = [_hover(s.text if s.text is not None else s.place, s.lang) for s in sentences]
    hover += [_hover(name, SPECIAL) for name in names]
    groups = _groups([sentence.lang for sentence in sentences], len(names))
    figure = go.Figure()
    for label, colour, which in groups:
        is_special = label == SPECIAL
        figure.add_scatter(
            x=np.round(plane[which, 0], 5).tolist(),
            y=np.round(plane[which, 1], 5).tolist(),
            mode="markers",
            name=_escaped(f"{label} ({len(which):,})"),
            hovertext=[hover[i] for i in which.tolist()],
            hoverinfo="text",
            marker={"color": colour, "size": 14 if is_special else 5, "symbol": "star" if is_special else "circle"},
            opacity=1.0 if is_special else 0.75,
        )
    axis = {"showticklabels": False, "zeroline": False, "title": {"text": ""}}
    figure.update_layout(
        template="none",
        xaxis=axis,
        yaxis=axis,
        height=560,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
        showlegend=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    caption = f"{len(sentences):,} random sentences, one point each. {kept} Sentences of one kind should lie together."
    drawn = picture("sentences_in_a_plane", "Sentences in a plane", caption, points(plane, groups), size=(WIDE, 5.6))
    return Plane(figure.to_json(), drawn)


def _groups(langs: list[str], num_special: int) -> list[tuple[str, str, np.ndarray]]:
    """Languages with their colours and indices, the most frequent first; the special concepts last."""
    ranked = [lang for lang, _ in sorted(Counter(langs).items(), key=lambda item: (-item[1], item[0]))]
    most = len(COLOURS) - 1
    named = ranked if len(ranked) <= most else ranked[: most - 1]
    groups = [(lang, colour, lang) for lang, colour in zip(named, (c for c in COLOURS if c != RED))]
    found = [(label, colour, np.flatnonzero([x == lang for x in langs])) for label, colour, lang in groups]
    if len(named) < len(ranked):
        found.append((_REST, OTHERS, np.flatnonzero([x not in named for x in langs])))
    if num_special:
        found.append((SPECIAL, RED, len(langs) + np.arange(num_special)))
    return found


def _hover(text: str, lang: str) -> str:
    """Lines of escaped text: plotly knows a few tags, and data has none."""
    lines = textwrap.wrap(shortened(text, _HOVER_CHARACTERS), _HOVER_LINE) or ["(empty)"]
    return "<br>".join([*map(_escaped, lines), f"<i>{_escaped(lang)}</i>"])


def _escaped(text: str) -> str:
    # Between two dollars plotly looks for formulas.
    return html.escape(text, quote=False).replace("$", "&#36;")
