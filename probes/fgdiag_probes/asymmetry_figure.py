"""The figures of an ablation: what each swap gains by group, and which stages of the model it moves."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from fgdiag_probes.asymmetry import Estimate, Swap
from fgdiag_probes.style import BLUE, GREEN, ORANGE, PURPLE, TEMPLATE, VERMILION

GROUP_COLOURS = {"fine": VERMILION, "general": BLUE}
GROUP_WORDS = {"fine": "fine-grained benchmarks", "general": "general benchmarks"}
STAGE_COLOURS = {"vision encoder": BLUE, "projector": GREEN, "language model": ORANGE, "answer": PURPLE}
ROOM = 70
"""Pixels of height for a swap."""


def gains_figure(swaps: Sequence[Swap]) -> go.Figure:
    """Draw the gain of each swap on fine-grained and on general benchmarks, in points, with 95 % intervals."""
    figure = go.Figure()
    for beside, group in ((0.14, "fine"), (-0.14, "general")):
        shown = [(place, swap.points[group]) for place, swap in enumerate(swaps)]
        figure.add_scatter(**_points(shown, beside, GROUP_WORDS[group], GROUP_COLOURS[group]))
    figure.update_xaxes(title="gain (points of accuracy)")
    return _laid_out(figure, swaps, "What each swap of a part gains")


def stages_figure(swaps: Sequence[Swap]) -> go.Figure:
    """Draw the points that each swap loses less (to the right) or more at each stage of the model."""
    figure = go.Figure()
    for number, (stage, colour) in enumerate(STAGE_COLOURS.items()):
        shown = [
            (place, _turned(swap.stages[stage])) for place, swap in enumerate(swaps) if stage in swap.stages
        ]
        figure.add_scatter(**_points(shown, 0.13 * (1.5 - number), stage, colour))
    figure.update_xaxes(title="no longer lost here (points)")
    return _laid_out(figure, swaps, "Where in the model each swap helps")


def name_of(swap: Swap) -> str:
    """What is swapped, in words."""
    return f"{_FACTOR_WORDS[swap.factor]}: {swap.before} → {swap.after}"


_FACTOR_WORDS = {"encoder": "encoder", "llm": "LLM", "plan": "training"}


def _points(shown: Sequence[tuple[int, Estimate]], beside: float, name: str, colour: str) -> dict[str, Any]:
    return {
        "x": [one.value for _, one in shown],
        "y": [-place + beside for place, _ in shown],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.value for _, one in shown],
            "arrayminus": [one.value - one.low for _, one in shown],
        },
        "mode": "markers",
        "name": name,
        "marker": {"color": colour, "size": 10},
        "hovertemplate": "%{x:+.1f} points<extra>" + name + "</extra>",
    }


def _turned(lost: Estimate) -> Estimate:
    """Of what is lost, what is no longer lost."""
    return Estimate(-lost.value, -lost.high, -lost.low)


def _laid_out(figure: go.Figure, swaps: Sequence[Swap], title: str) -> go.Figure:
    figure.add_vline(x=0, line={"width": 1.5, "color": "#8A8F98"})
    figure.update_yaxes(
        tickvals=[-place for place in range(len(swaps))],
        ticktext=[f"{_FACTOR_WORDS[swap.factor]}:<br>{swap.before} →<br>{swap.after}" for swap in swaps],
        range=[-len(swaps) + 0.5, 0.5],
        showgrid=False,
    )
    return figure.update_layout(
        template=TEMPLATE,
        title={"text": title, "xref": "container", "x": 0.02},
        height=230 + ROOM * len(swaps),
        hovermode="closest",
        margin={"t": 50, "b": 130},
        legend={"yref": "container", "y": 0, "yanchor": "bottom"},
    )
