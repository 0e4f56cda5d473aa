"""Figures to files: PNG, SVG and CSV of each, and one HTML page of them all that opens without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from fkv.probe import head_scores

from . import figures, record
from .figures import View
from .figures.style import Theme, palette
from .figures.view import PLOTLY_CONFIG
from .profile import Profile
from .splits import with_released


def views_of_profile(profile: Profile) -> list[View]:
    """Return the figures of a profile: head map, mass by age, stability, two frame maps and the atlas.

    The frame maps are those of the most static and of the most dynamic head.
    """
    masses = profile.mean_masses
    shown = "context" if "context" in profile.scored else masses[-1].name
    heads = extremes(profile.head_scores)
    return [
        figures.HeadMap(profile.roles),
        figures.AgeBars(masses, profile.roles),
        figures.HeadStability(profile),
        *(figures.FrameMap(masses, layer, head, shown) for layer, head in heads),
        figures.RoleAtlas(with_released(profile.roles)),
    ]


def views_of_run(run: record.Run, heads: Sequence[tuple[int, int]] = ()) -> list[View]:
    """Return the figures of a recorded run.

    They are X-ray and cost; with roles also the head map; with recorded attention also mass by age and frame maps.

    Args:
        run: The recorded run.
        heads: (layer, head) to draw frame maps of; by default those that look nearest and farthest.
    """
    views: list[View] = [figures.CacheXray(run.chunks), figures.ChunkCost(run.chunks)]
    if run.roles:
        views.append(figures.HeadMap(run.roles))
    last = [mass for mass in run.masses if mass.chunk == run.chunks[-1].index]
    if not last:
        return views
    if run.roles:
        views.append(figures.AgeBars(last, run.roles))
    if not heads and len(last[-1].key_frames) > 1:
        heads = extremes(head_scores(last[-1].mass))
    return views + [figures.FrameMap(run.masses, layer, head, last[-1].name) for layer, head in heads]


def extremes(scores: np.ndarray) -> list[tuple[int, int]]:
    """Return (layer, head) of the highest and of the lowest score: two heads, whatever is unknown."""
    order = np.argsort(scores, axis=None, kind="stable")  # unknown scores last
    known = max(2, int(np.count_nonzero(~np.isnan(scores))))
    found = dict.fromkeys(int(order[place]) for place in (min(known, order.size) - 1, 0))
    return [divmod(place, scores.shape[1]) for place in found]


def write_files(views: Iterable[View], folder: str | Path, theme: Theme = "light") -> list[Path]:
    """Write NAME.png, NAME.svg and NAME.csv of every figure into a folder, created if missing; return their paths."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [path for view in views for path in view.save(folder, theme)]


def page(views: Iterable[View], title: str, facts: Mapping[str, object], theme: Theme = "light") -> str:
    """Return one HTML page of figures with plotly.js inside, which opens without a network.

    Args:
        views: The figures, in order.
        title: Heading of the page.
        facts: Rows of text shown before the figures.
        theme: `light` or `dark`.
    """
    colours = palette(theme)
    sections = []
    for i, view in enumerate(views):
        plot = view.plotly(theme).to_html(full_html=False, include_plotlyjs=i == 0, config=PLOTLY_CONFIG)
        sections.append(f'<section id="{escape(view.name)}">{plot}</section>')
    rows = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
    style = f"""
    body {{ margin: 0 auto; padding: 2rem; max-width: 75rem; background: {colours.paper}; color: {colours.ink};
            font: 15px/1.5 system-ui, sans-serif; }}
    h1 {{ margin: 0 0 1rem; font-size: 1.7rem; }}
    dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.5rem; margin: 0 0 2rem; }}
    dt {{ color: {colours.soft}; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
    section {{ margin: 0 0 2.5rem; padding: 0 0 1.5rem; border-bottom: 1px solid {colours.grid}; overflow-x: auto; }}"""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><h1>{escape(title)}</h1><dl>{rows}</dl>{''.join(sections)}</body></html>\n"
    )


def export_profile(profile: Profile, folder: Path, theme: Theme = "light") -> list[Path]:
    """Write all figures of a profile and the page `profile.html`, and return their paths."""
    roles = profile.roles
    scored = ", ".join(profile.scored)
    within = profile.stability.within.mean()
    between = profile.stability.between.mean()
    facts = {
        "model": profile.model,
        "checkpoint": profile.checkpoint or "no weights file",
        "date": profile.date,
        "runs": f"{len(profile.runs)} of {roles.provenance['chunks']} chunks under full attention",
        "score": f"mass on the last {profile.last_k} key frames / mass on all but the first {profile.skip}; {scored}",
        "static heads": f"{roles.static_share:.1%}, score from {profile.threshold:g}; "
        f"uniform attention scores {profile.uniform:.3f}",
        "divergence": f"{within:.3f} within a head, {between:.3f} between heads (Jensen-Shannon, bits)",
        "prompts": "; ".join(roles.provenance["prompts"]),
    }
    return _export(views_of_profile(profile), folder, "profile", f"Head profile of {profile.model}", facts, theme)


def export_run(
    run: record.Run, folder: Path, heads: Sequence[tuple[int, int]] = (), theme: Theme = "light"
) -> list[Path]:
    """Write all figures of a recorded run and the page `run.html`, and return their paths; see `views_of_run`."""
    policy = dict(run.settings["policy"])
    events = "; ".join(f"chunk {chunk.index + 1}: {event}" for chunk in run.chunks for event in chunk.events)
    facts = {
        "model": run.settings["model"],
        "device": run.settings["device"],
        "policy": policy.pop("name"),
        "parameters": ", ".join(f"{key} = {value}" for key, value in policy.items()) or "none",
        "chunks": len(run.chunks),
        "prompt": "; ".join(dict.fromkeys(chunk.prompt for chunk in run.chunks)),
        "events": events or "none",
    }
    return _export(views_of_run(run, heads), folder, "run", f"A run of {run.settings['model']}", facts, theme)


def _export(
    views: list[View], folder: Path, name: str, title: str, facts: Mapping[str, object], theme: Theme
) -> list[Path]:
    written = write_files(views, folder, theme)
    target = Path(folder) / f"{name}.html"
    target.write_text(page(views, title, facts, theme), encoding="utf-8")
    return [*written, target]
