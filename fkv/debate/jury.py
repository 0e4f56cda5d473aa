"""A jury that says what a clip of the toy world shows. No language model: jurors look through the oracle.

Every juror sees another stretch of the clip, a third of it, and sees it badly: at half size, as a JPEG, with noise, of
which some have more than others. So jurors err, and err differently. Whoever hears another answer looks at the frames
that it rests on too, with their own eyes, and answers again. A juror who cannot read a part of the scene has no answer.

Tokens are words, and `FRAME_TOKENS` for every frame that a juror has before its eyes while it answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fkv.video import read_frames
from fkv.world import FPS, HEIGHT, WIDTH, oracle
from fkv.world.captions import Scene, Thing, caption

from .transcript import Message

QUESTION = "What does this clip show?"
MOST_FRAMES = 1024
SHARE = 3  # a juror's own stretch is one part of so many
MOST_NOISE = 40.0  # standard deviation, grey levels
JPEG_QUALITY = 75
PATCH = 16  # pixels of the small frame on a side, one token each
FRAME_TOKENS = (HEIGHT // 2 // PATCH) * (WIDTH // 2 // PATCH)
BIAS = 30  # degrees of hue by which a biased juror sees colours shifted


@dataclass
class Juror:
    """A juror before a clip.

    Args:
        name: By which others hear of it.
        clip: All frames, RGB, uint8 [T, HEIGHT, WIDTH, 3].
        own: Numbers of the frames that it looks at by itself.
        seed: Of the noise in its eyes.
        noise: Standard deviation of that noise in grey levels.
        biased: Whether it sees all colours shifted, the same way as every biased juror.
    """

    name: str
    clip: np.ndarray
    own: tuple[int, ...]
    seed: int
    noise: float
    biased: bool = False
    _readings: dict[tuple[int, ...], oracle.Reading] = field(default_factory=dict, repr=False)

    def answer(self, question: str, own: Message | None, heard: Sequence[Message]) -> Message:
        """Look at the frames of all messages, and say what they show."""
        known = own.evidence if own else self.own
        frames = tuple(sorted({*known, *(number for message in heard for number in message.evidence)}))
        scene = scene_of(self.read(frames))
        text = caption(scene) if isinstance(scene, Scene) else f"unsure: cannot read {' and '.join(scene)}"
        read = len(frames) * FRAME_TOKENS + sum(len(each.split()) for each in (question, *(m.text for m in heard)))
        answer = scene if isinstance(scene, Scene) else None
        return Message(self.name, answer, text, frames, read, len(text.split()))

    def read(self, frames: tuple[int, ...]) -> oracle.Reading:
        """What the juror sees in these frames of the clip."""
        if frames not in self._readings:
            seen = np.stack([self._look(i) for i in frames])
            self._readings[frames] = oracle.read(seen, frames)
        return self._readings[frames]

    def _look(self, number: int) -> np.ndarray:
        """A frame as the juror sees it, enlarged again for the oracle: uint8 [HEIGHT, WIDTH, 3]."""
        small = cv2.resize(self.clip[number], (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
        if self.biased:
            hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) + BIAS // 2) % 180  # OpenCV counts hue in steps of two degrees
            small = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        noise = np.random.default_rng((self.seed, number)).normal(0.0, self.noise, small.shape)
        noisy = (small + noise).round().clip(0, 255).astype(np.uint8)
        _, jpeg = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        seen = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))[..., ::-1]
        return cv2.resize(seen, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def jurors(clip: np.ndarray, count: int, seed: int, biased: int = 0) -> list[Juror]:
    """Seat jurors before a clip.

    Args:
        clip: RGB, uint8 [T, HEIGHT, WIDTH, 3].
        count: Number of jurors; a smaller jury of the same seed is the beginning of a larger one.
        seed: Chooses their frames and their noise.
        biased: How many of them, the first ones, share a bias.

    Raises:
        ValueError: The clip is no picture of the toy world, or too short to read motions from.
    """
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[1:] != (HEIGHT, WIDTH, 3):
        size = f"{clip.shape[2]} x {clip.shape[1]}" if clip.ndim == 4 else list(clip.shape)
        raise ValueError(f"jurors know the tiny model's world alone, in frames of {WIDTH} x {HEIGHT}, not {size}")
    if len(clip) < oracle.MIN_MOTION_FRAMES:
        raise ValueError(f"jurors tell motions from {oracle.MIN_MOTION_FRAMES} frames on; this clip has {len(clip)}")
    rng = random.Random(seed)
    length = -(-len(clip) // SHARE)
    seated = []
    for number in range(count):
        start = rng.randrange(len(clip) - length + 1)
        own = tuple(range(start, start + length))
        eyes = rng.randrange(1 << 30), rng.uniform(0, MOST_NOISE)
        seated.append(Juror(f"juror {number + 1}", clip, own, *eyes, number < biased))
    return seated


def load_clip(path: str | Path) -> np.ndarray:
    """Read a clip from a file: RGB, uint8 [T, HEIGHT, WIDTH, 3]. Raises ValueError for one that no jury can judge."""
    frames: list[np.ndarray] = []
    for frame in read_frames(path):
        frames.append(frame)
        if frame.shape != (HEIGHT, WIDTH, 3):
            break  # `jurors` says what is wrong
        if len(frames) > MOST_FRAMES:
            raise ValueError(f"jurors watch at most {MOST_FRAMES:,} frames; cut {path} to {MOST_FRAMES // FPS} s")
    if not frames:
        raise ValueError(f"{path} holds no frames")
    return np.stack(frames[-1:] if frames[-1].shape != frames[0].shape else frames)


def scene_of(reading: oracle.Reading) -> Scene | tuple[str, ...]:
    """The scene of a reading, things in the order of their colours; what is unread where it is not complete."""
    unread = [word for word in ("place", "time") if getattr(reading, word) is None]
    unread += [word for word in oracle.WORDS[:3] if any(getattr(thing, word) is None for thing in reading.things)]
    if unread or not reading.things:
        return tuple(unread) or ("things",)
    things = [Thing(str(thing.colour), str(thing.shape), str(thing.motion)) for thing in reading.things]
    return in_order(Scene(str(reading.place), str(reading.time), tuple(things)))


def in_order(scene: Scene) -> Scene:
    """The scene with its things in the order of their colours, so that equal scenes compare equal."""
    return Scene(scene.place, scene.time, tuple(sorted(scene.things, key=lambda thing: thing.colour)))
