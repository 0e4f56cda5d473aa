"""What happens in the memory world, chunk by chunk: the truth that `panorama` draws and the oracle is scored against.

A story follows the prompts of a stream and the genes of every chunk's noise. Genes decide what the prompts leave open:
an open colour or shape, the panels of the panorama at the chunk that first shows them, and events: a thing reverses, a
passer-by crosses the sky, a window lights up or goes dark. What was seen once stays as it was, for as long as it is
remembered: `recalls` says so for a viewer that forgets, and what is forgotten is drawn anew from the chunk's own genes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from . import WIDTH
from .captions import COLOURS, MOTIONS, SHAPES, Scene, Thing
from .render import GENES, PAN, PERIOD, START, TURN, position
from .shots import CAMERAS, Shot

CHUNK = 12  # video frames
STORY_GENES = 14  # genes per chunk
TURN_FRAMES = 8  # video frames of a turn of the camera; it is over before its chunk is
CROSSING = 48  # video frames that a passer-by needs
SWAY = 3.0  # pixels by which the camera sways
LATE = 4  # last video frames of a chunk, one latent frame; what they show was seen
REVERSAL = 0.25  # probability per chunk at which a thing that can reverse does
PASSER = 0.2  # probability per chunk of a passer-by while there is none
LIGHT = 0.125  # probability per chunk that the window in view changes
RETURN = 0.25  # probability per chunk at which a thing that is out of sight comes back
OUT_OF_SIGHT = {"hiding": (60, 132), "roaming": (84, 120)}  # clocks at which it waits and from which it comes back
WALL = 112.0  # column of the wall behind which a thing hides
LAYOUTS = 4
LAMPS = 4

# Which gene decides what. The opening chunk's genes 0 to 4 are those of `render`, so events begin after it. Choices
# change at levels that the model is shown (`fkv.transformer.coordinates.LEVELS`).
REVERSES, PASSES, PASSER_COLOUR, PASSER_WAY, LIGHTS = (0, 1), 2, 3, 4, 5
SIGN_COLOUR, SIGN_SHAPE, LAMP_COUNT, LIT, LAYOUT = 7, 8, 9, 10, 11
OPEN_COLOUR, OPEN_SHAPE = 12, 13

Recalls = Callable[[int, frozenset[int]], frozenset[int]]


@dataclass(frozen=True)
class Panel:
    """One panel of the panorama, as wide as the picture.

    Attributes:
        colour: Of the sign.
        shape: Of the sign.
        lamps: Number of lamps in the row, 1 to `LAMPS`.
        lit: Whether the window of the hut is lit.
        layout: Which of the `LAYOUTS` rotations of sign, tree, hut and lamps the panel has.
    """

    colour: str
    shape: str
    lamps: int
    lit: bool
    layout: int


@dataclass(frozen=True)
class Placed:
    """A thing with its centre in the picture, in pixels; the centre may lie outside."""

    thing: Thing
    x: float
    y: float


@dataclass(frozen=True)
class Passer:
    """A passer-by: its colour and its place in the picture, in pixels."""

    colour: str
    x: float
    y: float


@dataclass(frozen=True)
class Moment:
    """Everything that one video frame shows.

    Attributes:
        scene: The scene or shot of the frame's prompt.
        frame: Video frame on the world's clock.
        pan: Column of the panorama at the picture's left edge.
        swing: Part of `pan` that is the camera's own swing, for the sky.
        things: The moving things.
        radius: Their radius in pixels.
        passer: The passer-by, if there is one.
        panels: Panels by number, 0 ahead, -1 left of it.
        landmarks: Columns of free-standing landmarks.
        wall: Column of the wall, if there is one.
    """

    scene: Scene | Shot
    frame: int
    pan: float
    swing: float
    things: tuple[Placed, ...]
    radius: float
    passer: Passer | None = None
    panels: dict[int, Panel] = field(default_factory=dict)
    landmarks: tuple[float, ...] = ()
    wall: float | None = None


@dataclass(frozen=True)
class Events:
    """The events of one chunk, all decided by its noise.

    Attributes:
        reversed: Numbers of the things that turn round when the chunk begins.
        passer: Colour of the passer-by that sets out, or None.
        lights: Number of the panel whose window changes, or None.
        revealed: Numbers of the panels that the chunk shows for the first time.
        forgotten: Numbers of the panels that were drawn anew because they were not remembered.
    """

    reversed: tuple[int, ...] = ()
    passer: str | None = None
    lights: int | None = None
    revealed: tuple[int, ...] = ()
    forgotten: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChunkTruth:
    """One chunk of a story.

    Attributes:
        moments: One per video frame.
        events: What its noise decided.
        panels: Panels of which the chunk shows something.
    """

    moments: tuple[Moment, ...]
    events: Events
    panels: frozenset[int]


def remember_all(chunk: int, seen: frozenset[int]) -> frozenset[int]:
    """The `recalls` of a viewer that forgets nothing."""
    return seen


def _pick(gene: float, words: Sequence[str], taken: Sequence[str] = ()) -> str:
    """The word that a gene in [0, 1) chooses, or the next one that is not taken."""
    first = min(int(gene * len(words)), len(words) - 1)
    return next(word for word in (*words[first:], *words[:first]) if word not in taken)


def _ease(share: float) -> float:
    """A smooth step from 0 to 1."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _hiding(clock: float) -> tuple[float, float]:
    """A thing that waits at the left, goes behind the wall and comes out again."""
    turn = clock % PERIOD
    out = _ease((turn - 20) / 40) - _ease((turn - 140) / 40)
    return 42 + (WALL - 42) * out, 46 + 6 * math.sin(2 * math.pi * turn / 48)


def _roaming(clock: float) -> tuple[float, float]:
    """A thing that leaves the picture at the right, and returns."""
    turn = clock % PERIOD
    out = _ease((turn - 30) / 44) - _ease((turn - 126) / 44)
    return 62 + (WIDTH + 40 - 62) * out, 44 + 8 * math.sin(2 * math.pi * turn / 64)


def place_of(thing: Thing, clock: float, gene_place: float, slot: int, count: int) -> tuple[float, float]:
    """Centre of a thing like `render.position`, also for the motions of the memory world."""
    if thing.motion == "hiding":
        return _hiding(clock)
    if thing.motion == "roaming":
        return _roaming(clock)
    return position(thing, clock, gene_place, slot, count)


class Camera:
    """The camera of the panorama: it turns to the panel that the prompt names and sways a little."""

    def __init__(self, panel: int) -> None:
        self.target = panel
        self._from = float(panel * WIDTH)
        self._since = 0

    def turn(self, panel: int, frame: int) -> None:
        """Set out for another panel at a video frame."""
        if panel != self.target:
            self._from = self._centre(frame)
            self._since = frame
            self.target = panel

    def _centre(self, frame: int) -> float:
        there = _ease((frame - self._since) / TURN_FRAMES)
        return self._from + (self.target * WIDTH - self._from) * there

    def at(self, frame: int) -> float:
        """Column of the panorama at the left edge of the picture."""
        return self._centre(frame) + SWAY * math.sin(2 * math.pi * frame / TURN)


class Story:
    """The truth of a stream, extended chunk by chunk.

    Args:
        recalls: For a chunk and the chunks in which something was seen, those of them that the viewer remembers.
    """

    def __init__(self, recalls: Recalls = remember_all) -> None:
        self.recalls = recalls
        self.chunks: list[ChunkTruth] = []
        self._opening: tuple[float, ...] = ()
        self._camera: Camera | None = None
        self._panels: dict[int, Panel] = {}
        self._lit: dict[int, dict[int, bool]] = {}  # panel -> chunk that shows it -> is its window lit
        self._looks = COLOURS[0], SHAPES[0]
        self._looks_seen: frozenset[int] = frozenset()
        self._in_view = True
        self._clocks = [0, 0]
        self._ways = [1, 1]
        self._passer: tuple[int, str, float] | None = None
        self._before: Scene | Shot | None = None

    def extend(self, scene: Scene | Shot, genes: Sequence[float], forgets: bool = True) -> ChunkTruth:
        """Add the next chunk.

        Args:
            scene: What its prompt says.
            genes: At least `STORY_GENES` numbers in [0, 1), from the chunk's noise.
            forgets: Whether to consult `recalls`; False for chunks that nobody looks at.
        """
        chunk = len(self.chunks)
        self._opening = self._opening or tuple(genes[:GENES])
        frames = range(chunk * CHUNK, (chunk + 1) * CHUNK)
        pans = self._pans(scene, frames)
        things = self._things(scene, genes, chunk, forgets)
        self._set_clocks(scene, things, genes, pans)
        turned = self._reverse(things, genes, chunk)
        passer = self._pass_by(things, genes, chunk)
        events = Events(turned, passer)
        shown: frozenset[int] = frozenset()
        if isinstance(scene, Shot):
            shown = _panels_in(pans[-LATE:])
            revealed, forgotten = self._reveal(scene, things, shown, genes, chunk, forgets)
            lights = self._switch_light(pans, genes, {*revealed, *forgotten})
            for panel in shown:
                self._lit[panel][chunk] = self._panels[panel].lit
            events = Events(turned, passer, lights, revealed, forgotten)
        moments = tuple(self._moment(scene, things, *at) for at in zip(frames, pans, strict=True))
        if any(_in_sight(placed, moment) for moment in moments[-LATE:] for placed in moment.things):
            self._looks_seen |= {chunk}
        for slot in range(2):
            self._clocks[slot] += CHUNK * self._ways[slot]
        self._before = scene
        self.chunks.append(ChunkTruth(moments, events, shown))
        return self.chunks[-1]

    def _things(self, scene: Scene | Shot, genes: Sequence[float], chunk: int, forgets: bool) -> tuple[Thing, ...]:
        """The things of a chunk, open colours and shapes decided; a thing that the prompt drops is on its way out."""
        if isinstance(scene, Scene):
            return scene.things
        before = self._before.subject if isinstance(self._before, Shot) else None
        subject = scene.subject
        if subject is None:
            return () if before is None else (Thing(*self._looks, before.motion),)
        same = before is not None and (before.colour, before.shape) == (subject.colour, subject.shape)
        known = self.recalls(chunk, self._looks_seen) if forgets else self._looks_seen
        if not known or not (same or subject.before):
            signs = [self._panels[0].colour] if 0 in self._panels else []
            self._looks = _pick(genes[OPEN_COLOUR], COLOURS, signs), _pick(genes[OPEN_SHAPE], SHAPES)
            self._looks_seen = frozenset()
        self._looks = subject.colour or self._looks[0], subject.shape or self._looks[1]
        return (Thing(*self._looks, subject.motion),)

    def _set_clocks(
        self, scene: Scene | Shot, things: Sequence[Thing], genes: Sequence[float], pans: Sequence[float]
    ) -> None:
        """Let motions that come into view begin anew, and things out of sight wait until a gene brings them back."""
        in_view = bool(things) and (isinstance(scene, Scene) or abs(pans[-1]) < WIDTH / 2)
        if in_view and not self._in_view:
            self._clocks = [0, 0]
            self._ways = [1, 1]
        self._in_view = in_view
        waits, returns = OUT_OF_SIGHT.get(things[0].motion, (None, 0)) if things else (None, 0)
        if waits is not None and self._clocks[0] % PERIOD >= waits and self._clocks[0] % PERIOD < returns:
            self._clocks[0] = returns if genes[REVERSES[0]] < RETURN else waits

    def _reverse(self, things: Sequence[Thing], genes: Sequence[float], chunk: int) -> tuple[int, ...]:
        """Turn things round where that changes their path: half way between its turning points."""
        turned = tuple(
            slot
            for slot, thing in enumerate(things)
            if chunk and thing.motion in MOTIONS and self._clocks[slot] % 24 == 12 and genes[REVERSES[slot]] < REVERSAL
        )
        for slot in turned:
            self._ways[slot] *= -1
        return turned

    def _pass_by(self, things: Sequence[Thing], genes: Sequence[float], chunk: int) -> str | None:
        """Let a passer-by set out; its colour is none of the things'."""
        if self._passer and chunk * CHUNK >= self._passer[0] + CROSSING:
            self._passer = None
        if not chunk or self._passer or genes[PASSES] >= PASSER:
            return None
        colour = _pick(genes[PASSER_COLOUR], COLOURS, [thing.colour for thing in things])
        self._passer = chunk * CHUNK, colour, genes[PASSER_WAY]
        return colour

    def _pans(self, scene: Scene | Shot, frames: range) -> list[float]:
        """Column of the panorama at the picture's left edge, per frame."""
        if isinstance(scene, Scene):
            return [PAN * math.sin(2 * math.pi * frame / PERIOD) + START * self._opening[0] for frame in frames]
        panel = CAMERAS.index(scene.camera) - 1
        if self._camera is None:
            self._camera = Camera(panel)
        self._camera.turn(panel, frames[0])
        return [self._camera.at(frame) for frame in frames]

    def _reveal(
        self,
        shot: Shot,
        things: Sequence[Thing],
        shown: frozenset[int],
        genes: Sequence[float],
        chunk: int,
        forgets: bool,
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Decide the panels that come into view for the first time, and those that are not remembered."""
        revealed = tuple(sorted(panel for panel in shown if panel not in self._panels))
        forgotten: list[int] = []
        for panel in sorted(shown):
            seen = frozenset(self._lit.get(panel, ()))
            known = self.recalls(chunk, seen) if forgets else seen
            if panel in self._panels and not known:
                forgotten.append(panel)
            if not known:
                self._panels[panel] = _panel(genes, [thing.colour for thing in things if panel == 0])
                self._lit[panel] = {}
            elif known != seen:
                self._panels[panel] = replace(self._panels[panel], lit=self._lit[panel][max(known)])
        if shot.lamps and 0 in shown:
            self._panels[0] = replace(self._panels[0], lamps=shot.lamps)
        return revealed, tuple(forgotten)

    def _switch_light(self, pans: Sequence[float], genes: Sequence[float], fresh: set[int]) -> int | None:
        """Light or darken the window of the panel in view, while the camera rests."""
        panel = round(pans[0] / WIDTH)
        resting = all(abs(pan - panel * WIDTH) <= SWAY + 0.01 for pan in pans)
        if not resting or panel in fresh or genes[LIGHTS] >= LIGHT:
            return None
        self._panels[panel] = replace(self._panels[panel], lit=not self._panels[panel].lit)
        return panel

    def _moment(self, scene: Scene | Shot, things: Sequence[Thing], frame: int, pan: float) -> Moment:
        """Everything that one video frame shows."""
        _, *landmarks, gene_place, gene_size = self._opening if isinstance(scene, Scene) else [0.5] * GENES
        in_chunk = frame % CHUNK
        clocks = [clock + in_chunk * way for clock, way in zip(self._clocks, self._ways, strict=True)]
        places = [place_of(thing, clocks[i], gene_place, i, len(things)) for i, thing in enumerate(things)]
        radius = 13.5 + 2.5 * gene_size
        passer = self._passer_at(frame)
        if isinstance(scene, Shot):
            lift = self._lift(scene, in_chunk)
            placed = tuple(Placed(thing, x - pan, y - lift) for thing, (x, y) in zip(things, places, strict=True))
            panels = {panel: self._panels[panel] for panel in _panels_in([pan]) if panel in self._panels}
            wall = WALL - pan if any(thing.motion == "hiding" for thing in things) else None
            return Moment(scene, frame, pan, pan, placed, radius, passer, panels, wall=wall)
        placed = tuple(Placed(thing, x, y) for thing, (x, y) in zip(things, places, strict=True))
        swing = PAN * math.sin(2 * math.pi * frame / PERIOD)
        columns = tuple(c + 30 * (gene - 0.5) - swing for c, gene in zip((30, 130), landmarks, strict=True))
        return Moment(scene, frame, pan, swing, placed, radius, passer, landmarks=columns)

    def _passer_at(self, frame: int) -> Passer | None:
        """The passer-by at a video frame."""
        if self._passer is None:
            return None
        start, colour, gene = self._passer
        across = (frame - start) / (CROSSING - 1)
        x = (WIDTH + 16) * (across if gene < 0.5 else 1 - across) - 8
        return Passer(colour, x, 9 + 12 * (2 * gene % 1) + 1.5 * math.sin(frame / 4))

    def _lift(self, shot: Shot, in_chunk: int) -> float:
        """How far above its path a thing is that leaves or comes back in this chunk, in pixels."""
        if not isinstance(self._before, Shot) or (self._before.subject is None) == (shot.subject is None):
            return 0.0
        left = _ease((in_chunk + 1) / CHUNK)
        return 110 * (left if shot.subject is None else 1 - left)


def _panel(genes: Sequence[float], taken: Sequence[str]) -> Panel:
    """The panel that genes decide; its sign does not have a colour that is taken, that of the thing beside it."""
    colour = _pick(genes[SIGN_COLOUR], COLOURS, taken)
    lamps = 1 + min(int(genes[LAMP_COUNT] * LAMPS), LAMPS - 1)
    layout = min(int(genes[LAYOUT] * LAYOUTS), LAYOUTS - 1)
    return Panel(colour, _pick(genes[SIGN_SHAPE], SHAPES), lamps, genes[LIT] < 0.5, layout)


def _panels_in(pans: Iterable[float], margin: float = 6.0) -> frozenset[int]:
    """Panels of which more than their `margin` in pixels is in the picture at some of these pans."""
    return frozenset(panel for pan in pans for panel in (-1, 0, 1) if abs(panel * WIDTH - pan) < WIDTH - margin)


def _in_sight(placed: Placed, moment: Moment) -> bool:
    """Whether a thing's centre is in the picture and not behind the wall."""
    hidden = moment.wall is not None and abs(placed.x - moment.wall) < 12
    return 0 < placed.x < WIDTH and 0 < placed.y and not hidden
