"""Figures to files: PNG, SVG and CSV of each, and one HTML page of them all that opens without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from fkv.analysis.figures.style import Theme, drawing, palette
from fkv.probe import PassMass, head_scores
from fkv.roles import HeadRoles

from . import figures, record
from .profile import Profile

DPI = 160


@dataclass(frozen=True)
class Panel:
    """One figure in its three forms. `name` becomes the file name."""

    name: str
    interactive: go.Figure
    drawn: Figure
    table: pd.DataFrame


def panels_of_profile(profile: Profile, theme: Theme = "light") -> list[Panel]:
    """Head map, mass by age, stability, the most static and most dynamic head, and the atlas."""
    roles, masses = profile.roles, mean_masses(profile)
    models = figures.with_own(roles)
    return [
        Panel(
            "head-map", figures.head_map(roles, theme), figures.draw_head_map(roles, theme), figures.head_table(roles)
        ),
        _age_panel(masses, roles, theme),
        Panel(
            "stability",
            figures.head_stability(profile, theme),
            figures.draw_head_stability(profile, theme),
            figures.stability_table(profile),
        ),
        *(_frame_panel(masses, layer, head, theme) for layer, head in extremes(profile.head_scores)),
        Panel(
            "atlas",
            figures.role_atlas(models, theme),
            figures.draw_role_atlas(models, theme),
            figures.atlas_table(models),
        ),
    ]


def panels_of_run(run: record.Run, heads: Sequence[tuple[int, int]] = (), theme: Theme = "light") -> list[Panel]:
    """X-ray and cost; with roles also the head map; with recorded attention also mass by age and the frame maps of `heads`
    (default: those that look nearest and farthest)."""
    panels = [
        Panel(
            "cache-xray",
            figures.cache_xray(run.chunks, theme),
            figures.draw_cache_xray(run.chunks, theme),
            figures.page_table(run.chunks),
        ),
        Panel(
            "cost",
            figures.chunk_cost(run.chunks, theme),
            figures.draw_chunk_cost(run.chunks, theme),
            figures.cost_table(run.chunks),
        ),
    ]
    if run.roles:
        panels.append(
            Panel(
                "head-map",
                figures.head_map(run.roles, theme),
                figures.draw_head_map(run.roles, theme),
                figures.head_table(run.roles),
            )
        )
    last = [mass for mass in run.masses if mass.chunk == run.chunks[-1].index]
    if last:
        if run.roles:
            panels.append(_age_panel(last, run.roles, theme))
        chosen = heads or (extremes(head_scores(last[-1].mass)) if len(last[-1].key_frames) > 1 else ())
        panels += [_frame_panel(run.masses, layer, head, theme, last[-1].name) for layer, head in chosen]
    return panels


def extremes(scores: np.ndarray) -> list[tuple[int, int]]:
    """(layer, head) of the highest and of the lowest score."""
    return [tuple(int(i) for i in np.unravel_index(pick(scores), scores.shape)) for pick in (np.argmax, np.argmin)]


def mean_masses(profile: Profile) -> list[PassMass]:
    """The scored passes of a profile, averaged over runs."""
    chunk = profile.frames[0] // len(profile.frames)
    return [
        PassMass(chunk, name, profile.frames, profile.key_frames, profile.mass[:, profile.passes.index(name)].mean(0))
        for name in profile.scored
    ]


def _age_panel(masses: Sequence[PassMass], roles: HeadRoles, theme: Theme) -> Panel:
    return Panel(
        "mass-by-age",
        figures.age_bars(masses, roles, theme),
        figures.draw_age_bars(masses, roles, theme),
        figures.age_table(masses, roles),
    )


def _frame_panel(masses: Sequence[PassMass], layer: int, head: int, theme: Theme, name: str = "context") -> Panel:
    name = name if any(mass.name == name for mass in masses) else masses[-1].name
    return Panel(
        f"frames-layer{layer}-head{head}",
        figures.frame_map(masses, layer, head, name, theme),
        figures.draw_frame_map(masses, layer, head, name, theme),
        figures.frame_matrix(masses, layer, head, name).reset_index(),
    )


def write_files(panels: Iterable[Panel], folder: str | Path, theme: Theme = "light") -> list[Path]:
    """Write NAME.png, NAME.svg and NAME.csv of every panel and return their paths."""
    folder, written = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for panel in panels:
        paths = [folder / f"{panel.name}.{ending}" for ending in ("png", "svg", "csv")]
        with drawing(theme):
            panel.drawn.savefig(paths[0], dpi=DPI)
            panel.drawn.savefig(paths[1], metadata={"Date": None})
        panel.table.to_csv(paths[2], index=False, float_format="%.6g")
        written += paths
    return written


def page(panels: Iterable[Panel], title: str, facts: Mapping[str, object], theme: Theme = "light") -> str:
    """One self-contained HTML page: plotly.js is inside, nothing is loaded from anywhere."""
    colours, parts = palette(theme), []
    for i, panel in enumerate(panels):
        plot = panel.interactive.to_html(
            full_html=False, include_plotlyjs=i == 0, config={"displaylogo": False, "responsive": True}
        )
        parts.append(f'<section id="{escape(panel.name)}">{plot}</section>')
    rows = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
    style = f"""
    body {{ margin: 0 auto; padding: 2rem; max-width: 75rem; background: {colours.paper}; color: {colours.ink};
            font: 15px/1.5 system-ui, sans-serif; }}
    h1 {{ margin: 0 0 1rem; font-size: 1.7rem; }}
    dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.5rem; margin: 0 0 2rem; }}
    dt {{ color: {colours.soft}; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
    section {{ margin: 0 0 2.5rem; padding: 0 0 1.5rem; border-bottom: 1px solid {colours.grid}; overflow-x: auto; }}"""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{style}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1><dl>{rows}</dl>{"".join(parts)}</body></html>\n'


def export_profile(profile: Profile, folder: Path, theme: Theme = "light") -> list[Path]:
    """All figures of a profile and the page `profile.html`."""
    roles, stability = profile.roles, profile.stability
    facts = {
        "model": profile.model,
        "checkpoint": profile.checkpoint or "no weights file",
        "date": profile.date,
        "runs": f"{len(profile.runs)} of {roles.provenance['chunks']} chunks under full attention",
        "score": f"mass on the last {profile.last_k} key frames / mass on all but the first {profile.skip}; {', '.join(profile.scored)}",
        "static heads": f"{roles.static_share:.1%}, score from {profile.threshold:g}; uniform attention scores {profile.uniform:.3f}",
        "divergence": f"{stability.within.mean():.3f} within a head, {stability.between.mean():.3f} between heads (Jensen-Shannon, bits)",
        "prompts": "; ".join(roles.provenance["prompts"]),
    }
    return _export(
        panels_of_profile(profile, theme), folder, "profile", f"Head profile of {profile.model}", facts, theme
    )


def export_run(
    run: record.Run, folder: Path, heads: Sequence[tuple[int, int]] = (), theme: Theme = "light"
) -> list[Path]:
    """All figures of a recorded run and the page `run.html`."""
    policy = dict(run.settings["policy"])
    facts = {
        "model": run.settings["model"],
        "device": run.settings["device"],
        "policy": policy.pop("name"),
        "parameters": ", ".join(f"{key} = {value}" for key, value in policy.items()) or "none",
        "chunks": len(run.chunks),
        "prompt": "; ".join(dict.fromkeys(chunk.prompt for chunk in run.chunks)),
        "events": "; ".join(f"chunk {chunk.index}: {event}" for chunk in run.chunks for event in chunk.events)
        or "none",
    }
    return _export(panels_of_run(run, heads, theme), folder, "run", f"A run of {run.settings['model']}", facts, theme)


def _export(
    panels: list[Panel], folder: Path, name: str, title: str, facts: Mapping[str, object], theme: Theme
) -> list[Path]:
    written = write_files(panels, folder, theme)
    target = Path(folder) / f"{name}.html"
    target.write_text(page(panels, title, facts, theme), encoding="utf-8")
    return [*written, target]
