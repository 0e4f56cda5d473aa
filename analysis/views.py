"""Views of a run for notebooks and scripts, one function each.

    from fkv.analysis import xray

    chunks = [stream.step() for _ in range(6)]
    xray(chunks)

As the last line of a notebook's cell a view shows itself, as a widget that needs no network. `.plotly("dark")` and
`.matplotlib()` return the figure of one library, `.table` the numbers, `.to_html()` a page of its own, and
`.save(folder)` writes PNG, SVG and CSV. Everywhere a recorded run may stand, so may its folder (`fkv stream --record`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fkv.models.base import VideoModel
from fkv.probe import PassMass
from fkv.roles import HeadRoles
from fkv.stream import Chunk

from . import figures, record
from .profile import Profile
from .record import Run

Chunks = Sequence[Chunk] | Run | str | Path
Masses = Sequence[PassMass] | Run | Profile | str | Path


def xray(run: Chunks) -> figures.CacheXray:
    """Show the cache: which page of every latent frame each chunk could attend to, and what for.

    Args:
        run: The chunks of a stream in order, a recorded run, or its folder.

    Returns:
        A view with one panel per head group, chunks down and latent frames across.

    Raises:
        ValueError: There are no chunks, or the folder holds no recorded run.
    """
    return figures.CacheXray(_chunks(run))


def cost(run: Chunks) -> figures.ChunkCost:
    """Show the cost of every chunk: bytes of K and V, and seconds per stage.

    Args:
        run: The chunks of a stream in order, a recorded run, or its folder.

    Raises:
        ValueError: There are no chunks, or the folder holds no recorded run.
    """
    return figures.ChunkCost(_chunks(run))


def head_map(
    source: HeadRoles | VideoModel | Profile | Run | str | Path, selected: tuple[int, int] | None = None
) -> figures.HeadMap:
    """Show which heads are static and which dynamic, and the scores that this follows from where they are known.

    Args:
        source: Head roles, or a model, a profile, a recorded run or its folder, whose roles are shown.
        selected: (layer, head) to frame.

    Returns:
        A view with layers down and heads across.

    Raises:
        ValueError: The source has no head roles.
    """
    roles = source if isinstance(source, HeadRoles) else _loaded(source).roles
    if roles is None:
        raise ValueError("there are no head roles to show; profile the model or load a roles file")
    return figures.HeadMap(roles, selected)


def frame_mass(source: Masses, layer: int, head: int, name: str | None = None) -> figures.FrameMap:
    """Show where a head looks: attention mass from every recorded query frame to every key frame.

    Args:
        source: Masses that a `fkv.probe.FrameMassProbe` took, each [layers, heads, query frames, key frames]; or a
            recorded run, its folder, or a profile.
        layer: Layer of the head, from 0.
        head: Number of the head in its layer, from 0.
        name: Which pass to show, such as `step 0` or `context`; by default the last one recorded.

    Returns:
        A view with query frames down and key frames across; rows sum to 1.

    Raises:
        ValueError: No such pass was recorded, or there is no such head.
    """
    masses = _masses(source)
    return figures.FrameMap(masses, layer, head, name or masses[-1].name)


def mass_by_age(source: Masses, roles: HeadRoles | None = None) -> figures.AgeBars:
    """Show how old the frames are that each head looks at, one bar per head.

    Args:
        source: Masses as in `frame_mass`; of a recorded run those of its last chunk are shown.
        roles: Head roles; by default those of the run or profile.

    Raises:
        ValueError: No attention was recorded, or there are no head roles.
        RolesError: The roles are for a model of another size.
    """
    source = _loaded(source)
    roles = roles or getattr(source, "roles", None)
    if roles is None:
        raise ValueError("there are no head roles to sort the heads by; profile the model or load a roles file")
    masses = _masses(source)
    return figures.AgeBars([mass for mass in masses if mass.chunk == masses[-1].chunk], roles)


def stability(profile: Profile) -> figures.HeadStability:
    """Show how much each head's score varies over prompts and passes, and how much heads differ from each other.

    Args:
        profile: What `fkv.analysis.profile.profile` found.
    """
    return figures.HeadStability(profile)


def _loaded(source: Any) -> Any:
    return record.load(source) if isinstance(source, (str, Path)) else source


def _chunks(source: Chunks) -> Sequence[Chunk]:
    run = _loaded(source)
    return run.chunks if isinstance(run, Run) else run


def _masses(source: Masses) -> Sequence[PassMass]:
    run = _loaded(source)
    masses = run.masses if isinstance(run, Run) else run.mean_masses if isinstance(run, Profile) else run
    if not masses:
        raise ValueError("no attention was recorded; step the stream with a fkv.probe.FrameMassProbe")
    return masses
