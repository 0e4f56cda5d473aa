"""Draw training clips: of today's world, and of the memory world, whose prompts make things leave and return.

Rendering needs no model, so `ClipStream` does it in processes beside the training; `encoded` makes latents of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset, get_worker_info

from fkv.models.codec import FRAMES_PER_LATENT, TinyCodec
from fkv.world import shots
from fkv.world.captions import COLOURS, MOTIONS, SHAPES, Scene, caption, loosened, sample_scene
from fkv.world.panorama import draw, labels
from fkv.world.render import render
from fkv.world.shots import CAMERAS, MEMORY_MOTIONS, Shot, Subject, sample_shot
from fkv.world.story import CHUNK, RETURN, REVERSES, STORY_GENES, ChunkTruth, Story
from fkv.world.tensors import genes_of, noise_of, random_genes, to_pixels

from .data import Clips, memory_mask, object_mask
from .history import CHUNK_FRAMES, MIXED, History, Kind, draw_history
from .precision import products_in

FARTHEST_CHUNK = 340
LONGEST = 84  # chunks of a script, 63 seconds
EMPHASIS = 6  # how much more the error of a masked latent pixel counts
WATCHED = 0.4  # share of scripts whose camera stays on a thing that leaves by itself
RETURNING = 0.7  # share of those whose thing comes back in the clip; by chance it does in few
GONE = 7  # chunks after which it is out of sight, however it leaves


def change(scene: Scene, rng: random.Random) -> Scene:
    """Draw the scene after a prompt change: another place and time, or another first thing, or both."""
    other = sample_scene(rng, two=0.0)
    kind = rng.randrange(3)
    thing = rng.choice(
        (
            other.things[0],
            replace(scene.things[0], colour=rng.choice(COLOURS)),
            replace(scene.things[0], shape=rng.choice(SHAPES)),
            replace(scene.things[0], motion=rng.choice(MOTIONS)),
        )
    )
    things = scene.things if kind == 0 else (thing, *scene.things[1:])
    return Scene(scene.place if kind == 1 else other.place, scene.time if kind == 1 else other.time, things)


@dataclass(frozen=True)
class Rendered:
    """A training batch before it is encoded; `Clips` has the same fields.

    Attributes:
        video: RGB, uint8 [B, T, H, W, 3].
        mask: The pixels that count more, bool [B, T, 1, H, W].
        prompts: One per clip and chunk.
        corners: See `Clips`.
        chunks: Chunk indices of the clip.
        history: See `Clips`.
    """

    video: Tensor
    mask: Tensor
    prompts: list[list[str]]
    corners: Tensor
    chunks: list[int]
    history: History | None = None


class ClipStream(IterableDataset):
    """Batches of clips without end, another sequence in every process of a `DataLoader`.

    Args:
        render: Renders `count` clips of `chunks` chunks, called as `render(rng, channels, count, chunks)`.
        channels: Channels of the latents.
        clips: Clips per batch.
        chunks: Chunks per clip.
        openings: Share of batches of opening chunks alone, as many chunks in all.
        seed: Chooses the sequences.
    """

    def __init__(
        self,
        render: Callable[[random.Random, int, int, int], Rendered],
        channels: int,
        clips: int,
        chunks: int,
        openings: float,
        seed: int,
    ) -> None:
        self.render = render
        self.channels = channels
        self.clips = clips
        self.chunks = chunks
        self.openings = openings
        self.seed = seed

    def __iter__(self) -> Iterator[Rendered]:
        process = get_worker_info()
        if process:
            cv2.setNumThreads(0)  # the processes share the cores already
        rng = random.Random(f"{self.seed} {process.id if process else 0}")
        while True:
            chunks = 1 if rng.random() < self.openings else self.chunks
            yield self.render(rng, self.channels, self.clips * self.chunks // chunks, chunks)


def render_clips(rng: random.Random, channels: int, count: int, chunks: int) -> Rendered:
    """Render clips of today's world.

    Args:
        rng: Source of randomness.
        channels: Channels of the latents.
        count: Number of clips.
        chunks: Chunks per clip. All clips share their chunk indices; the first one opens the stream.
    """
    far = rng.random() < 0.4
    start = rng.randrange(1, FARTHEST_CHUNK) if far else 1
    indices = [0, *range(start, start + chunks - 1)]
    videos: list[Tensor] = []
    masks: list[Tensor] = []
    prompts: list[list[str]] = []
    corners: list[Tensor] = []
    for _ in range(count):
        corner = torch.tensor([rng.gauss(0.0, 1.0) for _ in range(channels)])
        genes = genes_of(corner)
        scene = sample_scene(rng, two=0.5)
        switch = rng.randrange(1, chunks) if chunks > 1 and rng.random() < 0.3 else chunks
        scenes = [scene] * switch + [change(scene, rng)] * (chunks - switch)
        texts = [loosened(caption(at, rng), rng) for at in (scenes[0], scenes[-1])]
        prompts.append([texts[0]] * switch + [texts[1]] * (chunks - switch))
        video: list[Tensor] = []
        mask: list[Tensor] = []
        for index, at in zip(indices, scenes, strict=True):
            frames = range(index * CHUNK, (index + 1) * CHUNK)
            drawn = render(at, frames, genes)
            video.append(torch.from_numpy(drawn))
            mask.append(object_mask(at, frames, genes, to_pixels(drawn)).bool())
        videos.append(torch.cat(video))
        masks.append(torch.cat(mask))
        corners.append(corner)
    return Rendered(torch.stack(videos), torch.stack(masks), prompts, torch.stack(corners)[:, None], indices)


@torch.no_grad()
def encoded(codec: TinyCodec, rendered: Rendered, device: str, precision: str | None = None) -> Clips:
    """Encode a batch on a device, and turn the mask of its things into weights of the latents.

    Args:
        codec: The codec, in float32.
        rendered: The batch.
        device: Where the codec is.
        precision: See `products_in`.
    """
    with products_in(precision, device):
        pixels = rendered.video.to(device).movedim(-1, 2).float().div_(127.5).sub_(1)
        latents = codec.encode(pixels).float()
    mask = rendered.mask.to(device).float().unflatten(1, (-1, FRAMES_PER_LATENT)).amax(2)
    mask = F.max_pool2d(mask.flatten(0, 1), 8).unflatten(0, mask.shape[:2])
    return Clips(
        latents,
        1 + EMPHASIS * mask,
        rendered.prompts,
        rendered.corners.to(device),
        rendered.chunks,
        judged(rendered.chunks, device),
        rendered.history,
    )


def judged(chunks: Sequence[int], device: str) -> Tensor:
    """Which frames of a clip count in the loss: those of the opening and of chunks whose predecessor is in the clip."""
    counts = [chunk == 0 or (i > 0 and chunks[i - 1] == chunk - 1) for i, chunk in enumerate(chunks)]
    return torch.tensor(counts, device=device).repeat_interleave(CHUNK_FRAMES)[:, None, None, None]


# The memory world.


@dataclass(frozen=True)
class Cut:
    """What all clips of a memory batch share.

    Attributes:
        cameras: Direction of the camera, per chunk of the stream.
        present: Whether the thing is in the prompt, per chunk.
        chunks: Chunk indices of the clip.
        watched: Whether the camera soon stays on a thing that hides or roams.
        returns: Chunk whose noise brings that thing back, and no other; None leaves it to chance.
    """

    cameras: tuple[str, ...]
    present: tuple[bool, ...]
    chunks: tuple[int, ...]
    watched: bool = False
    returns: int | None = None

    def genes(self, rng: random.Random, chunk: int) -> dict[int, float]:
        """The genes of a chunk that chance does not decide, by number: whether the watched thing comes back."""
        if self.returns is None:
            return {}
        return {REVERSES[0]: rng.uniform(0, RETURN) if chunk == self.returns else rng.uniform(RETURN, 1)}


def draw_cut(rng: random.Random, chunks: int) -> Cut:
    """Draw a script and the chunks of a clip.

    After short stays the camera turns, or the thing ahead leaves or comes back, so a clip holds several returns; or the
    camera soon stays on a thing that hides or roams, and most of those clips show its return. Clips are whole, or all
    between their first two chunks and the last ones is left out, so that what returns was away for up to a minute.
    """
    if rng.random() < WATCHED:
        start = rng.randrange(3, LONGEST - chunks) if rng.random() < 0.5 else 2
        turned = rng.randint(0, 1)
        returns = None
        if rng.random() < RETURNING:
            returns = rng.randint(GONE + turned, 2 * GONE if rng.random() < 0.5 else LONGEST - chunks)
            start = max(2, rng.randint(min(returns + 5 - chunks, returns - 1), returns - 1))
        aside = (rng.choice(("left", "right")),) * turned
        return Cut(
            aside + ("ahead",) * (LONGEST - turned), (True,) * LONGEST, _beginning_and(start, chunks), True, returns
        )
    cameras: list[str] = []
    present: list[bool] = []
    while len(cameras) < LONGEST:
        camera = cameras[-1] if cameras else rng.choice(CAMERAS)
        shown = present[-1] if present else rng.random() < 0.85
        if camera == "ahead" and rng.random() < 0.75:
            shown = not shown
        elif cameras:
            camera = rng.choice([name for name in CAMERAS if name != camera])
        stay = rng.randint(1, 2) if rng.random() < 0.85 else rng.randint(3, 12)
        cameras += [camera] * stay
        present += [shown] * stay
    states = list(zip(cameras, present, strict=True))
    starts = [i for i in range(3, LONGEST - chunks) if states[i] != states[i + 1]]
    start = rng.choice(starts) if starts and rng.random() < 0.5 else 2
    return Cut(tuple(cameras), tuple(present), _beginning_and(start, chunks))


def _beginning_and(start: int, chunks: int) -> tuple[int, ...]:
    """The first two chunks of a stream and those from `start`, `chunks` in all."""
    return (0, 1, *range(start, start + chunks - 2))


def script(rng: random.Random, cut: Cut) -> list[Scene | Shot]:
    """Fill in the scenes of one clip; the thing is called the one "from before" once it left."""
    first = sample_shot(rng)
    subject = first.subject or Subject(None, None, rng.choice(MOTIONS))
    if cut.watched:
        subject = replace(subject, motion=rng.choice(MEMORY_MOTIONS))
    was_away = False
    scenes: list[Scene | Shot] = []
    for camera, present in zip(cut.cameras, cut.present, strict=True):
        again = Subject(None, subject.shape, subject.motion, before=True)
        shown = None if not present else again if was_away else subject
        scenes.append(Shot(first.place, first.time, shown, camera, first.lamps))
        was_away = was_away or not present
    return scenes


def render_memory_clips(
    rng: random.Random,
    channels: int,
    count: int,
    chunks: int,
    kinds: Sequence[Kind] = MIXED,
    panorama: float = 0.8,
) -> Rendered:
    """Render clips of the memory world.

    What a pruned history has lost is drawn anew from the noise of the chunk that shows it, so the true frames follow
    from what the chunk sees, under every kind of history.

    Args:
        rng: Source of randomness.
        channels: Channels of the latents.
        count: Number of clips. All clips share their chunk indices, their history and the camera's turns.
        chunks: Chunks per clip.
        kinds: Kinds of history to choose from.
        panorama: Share of batches with shots; the others hold captions of today's world, with events.
    """
    is_panorama = rng.random() < panorama
    cut = Cut((), (), (0,)) if chunks == 1 else draw_cut(rng, chunks)
    if chunks == 1 and is_panorama:
        cut = Cut((rng.choice(CAMERAS) if rng.random() < 0.3 else "ahead",), (rng.random() < 0.95,), (0,))
    elif chunks > 1 and not is_panorama:
        start = rng.randrange(1, LONGEST - chunks) if rng.random() < 0.4 else 1
        cut = replace(cut, chunks=(0, *range(start, start + chunks - 1)))
    history = draw_history(rng, cut.chunks, kinds)
    videos: list[Tensor] = []
    masks: list[Tensor] = []
    prompts: list[list[str]] = []
    corners: list[Tensor] = []
    for _ in range(count):
        scenes = script(rng, cut) if is_panorama else _plain_script(rng, cut.chunks)
        corner = torch.tensor([[rng.gauss(0.0, 1.0) for _ in range(channels)] for _ in cut.chunks])
        for row, chunk in zip(corner, cut.chunks, strict=True):
            for number, gene in cut.genes(rng, chunk).items():
                row[number] = noise_of(gene)
        truth = _tell(rng, scenes, corner, history, cut)
        moments = [moment for chunk in truth for moment in chunk.moments]
        videos.append(torch.from_numpy(draw(moments)))
        masks.append(memory_mask(labels(moments)).bool())
        prompts.append(_captions(rng, [scenes[chunk] for chunk in cut.chunks]))
        corners.append(corner)
    return Rendered(torch.stack(videos), torch.stack(masks), prompts, torch.stack(corners), list(cut.chunks), history)


def _plain_script(rng: random.Random, chunks: Sequence[int]) -> list[Scene | Shot]:
    """A scene of today's world, in a third of the cases with a prompt change within the clip."""
    scene = sample_scene(rng, two=0.4)
    switch = rng.choice(chunks[1:]) if len(chunks) > 1 and rng.random() < 0.3 else chunks[-1] + 1
    return [*[scene] * switch, *[change(scene, rng)] * (chunks[-1] + 1 - switch)]


def _tell(
    rng: random.Random, scenes: Sequence[Scene | Shot], corners: Tensor, history: History, cut: Cut
) -> list[ChunkTruth]:
    """The chunks of a clip; chunks that the clip leaves out happen too, with genes of their own."""
    story = Story(history.remembered)
    told: list[ChunkTruth] = []
    for chunk in range(history.chunks[-1] + 1):
        if chunk in history.chunks:
            genes = genes_of(corners[history.chunks.index(chunk)], STORY_GENES)
            told.append(story.extend(scenes[chunk], genes))
        else:
            genes = random_genes(rng, STORY_GENES)
            for number, gene in cut.genes(rng, chunk).items():
                genes[number] = gene
            story.extend(scenes[chunk], genes, forgets=False)
    return told


def _captions(rng: random.Random, scenes: Sequence[Scene | Shot]) -> list[str]:
    """One caption per chunk; the wording changes only where the scene does."""
    texts: list[str] = []
    for i, scene in enumerate(scenes):
        if i and scene == scenes[i - 1]:
            texts.append(texts[-1])
            continue
        text = shots.caption(scene, rng) if isinstance(scene, Shot) else caption(scene, rng)
        texts.append(loosened(text, rng))
    return texts
