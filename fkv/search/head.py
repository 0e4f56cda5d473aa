"""A head that predicts the reward of every move from one call, after the multifurcation reward model of Saffron-1.

Its outputs are moves by name (`Move.key`), so what they do must mean the same in every stream. It is trained on streams
that took moves at random: each chunk teaches the output of the one move that was taken, and moves that were never taken
have no output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fkv.models.base import VideoModel
from fkv.stream import Chunk

from .moves import Moves
from .tree import Node

GRID = (3, 5)  # rows and columns to which latents are averaged
WIDTH = 128
STEPS = 300
SHIPPED = "saffron.safetensors"  # beside the weights of its model
WHERE = 3  # last features of a state: where the stream stands
HELD_OUT = 5  # every fifth run is held out where the error is measured


@dataclass(frozen=True)
class Samples:
    """What runs with random moves teach.

    Args:
        states: What a head sees before each chunk, float32 [chunks, features], see `state_of`.
        moves: `Move.key` of the move that was taken, per chunk.
        rewards: Of the chunks, float32 [chunks].
        runs: Number of the run that each chunk is of.
    """

    states: Tensor
    moves: tuple[str, ...]
    rewards: Tensor
    runs: tuple[int, ...]

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """The samples of several runs, numbered in their order."""
        return cls(
            torch.cat([part.states for part in parts]),
            tuple(move for part in parts for move in part.moves),
            torch.cat([part.rewards for part in parts]),
            tuple(number for number, part in enumerate(parts) for _ in part.moves),
        )

    def of_runs(self, held_out: bool) -> Samples:
        """Those of the runs that are held out, or of all others."""
        at = [i for i, run in enumerate(self.runs) if (run % HELD_OUT == HELD_OUT - 1) == held_out]
        return Samples(
            self.states[at], tuple(self.moves[i] for i in at), self.rewards[at], tuple(self.runs[i] for i in at)
        )


class Head(nn.Module):
    """Predicts rewards, 0 to 1.

    Args:
        moves: The moves that it predicts, one output each.
        features: Length of a state.
        facts: What it was trained on.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, moves: Sequence[str], features: int, facts: dict[str, Any]) -> None:
        super().__init__()
        self.moves = tuple(moves)
        self.facts = facts
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.hidden = nn.Linear(features, WIDTH)
        self.out = nn.Linear(WIDTH, len(self.moves))

    def forward(self, states: Tensor) -> Tensor:
        """The predicted reward of every move: [states, moves] of [states, features]."""
        return self.out(nn.functional.silu(self.hidden((states - self.mean) / self.scale)))

    @torch.inference_mode()
    def predict(self, state: Tensor) -> dict[str, float]:
        """The predicted reward of every move by its key, for one state, [features]."""
        return dict(zip(self.moves, self(state[None])[0].clamp(0, 1).tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the head to a file of safetensors."""
        described = {"moves": json.dumps(self.moves), "facts": json.dumps(self.facts)}
        write_tensors({name: value.contiguous() for name, value in self.state_dict().items()}, path, described)

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read a head. Raises ValueError when the file is none."""
        tensors, described = read_tensors(path, "a head")
        try:
            head = cls(json.loads(described["moves"]), len(tensors["mean"]), json.loads(described["facts"]))
            head.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise ValueError(f"{path.name} is no head; train one with fkv search --learn") from None
        return head.eval()

    @classmethod
    def beside(cls, model: VideoModel) -> Head | None:
        """The head that lies beside a model's weights as `SHIPPED`; None where there is none."""
        file = model.beside(SHIPPED)
        return cls.load(file) if file else None


def state_of(model: VideoModel, index: int, chunk: Chunk | None, text: Tensor, is_new_prompt: bool) -> Tensor:
    """What a head sees before a chunk.

    Args:
        model: The video model.
        index: Of the chunk that comes, from 0.
        chunk: The one before it, None for the first.
        text: Embeddings of the prompt in force if nothing but the plain move is made, [1, tokens, text_dim].
        is_new_prompt: Whether that prompt begins with the chunk.

    Returns:
        float32 [features]: pooled latents, mean embedding, whether there is a chunk before, whether the prompt is new,
        and how far the stream is.
    """
    if chunk is None:
        latents = torch.zeros(model.latent[0], *GRID)
    else:
        latents = nn.functional.adaptive_avg_pool2d(chunk.latents[0].float().mean(0), GRID).cpu()
    where = torch.tensor([float(chunk is not None), float(is_new_prompt), 1 / (1 + index)])
    return torch.cat([latents.flatten(), text[0].float().mean(0).cpu(), where])


class Foresight:
    """What a head predicts at the nodes of a search; embeddings of prompts are kept.

    Args:
        model: The video model.
        moves: The moves of the search.
        head: The head; None only to see `state`.
    """

    def __init__(self, model: VideoModel, moves: Moves, head: Head | None = None) -> None:
        self._model = model
        self._moves = moves
        self._head = head
        self._texts: dict[str, Tensor] = {}

    def __call__(self, node: Node) -> dict[str, float]:
        """The predicted rewards of a node's children, by `Move.key`."""
        return {} if self._head is None else self._head.predict(self.state(node))

    def state(self, node: Node) -> Tensor:
        """What a head sees behind a node, see `state_of`."""
        due = self._moves.plain(node.moves).changes
        prompt = self._moves.prompt_after(node.moves, due)
        if prompt not in self._texts:
            with torch.inference_mode():
                self._texts[prompt] = self._model.encode(prompt)
        is_new = prompt != self._moves.prompt_after(node.moves)
        return state_of(self._model, node.depth, node.chunk, self._texts[prompt], is_new)


def fit(samples: Samples, facts: dict[str, Any]) -> Head:
    """Train a head, and measure one that has not seen every fifth run.

    Args:
        samples: What to learn.
        facts: What the samples are of; the head keeps them, with the number of `samples`, and the errors of the other
            head on the runs that it has not seen: `error`, and what it would be if each move were predicted its mean
            reward, `error_of_means`, or each chunk the mean of those at its place in the stream, `error_of_places`.
    """
    facts = {**facts, "samples": len(samples.moves)}
    seen, held_out = samples.of_runs(held_out=False), samples.of_runs(held_out=True)
    if held_out.moves:
        other = _trained(seen, {})
        known = [i for i, move in enumerate(held_out.moves) if move in other.moves]
        outputs = torch.tensor([other.moves.index(held_out.moves[i]) for i in known], dtype=torch.long)
        truth = held_out.rewards[known]
        with torch.inference_mode():
            predicted = other(held_out.states[known])[range(len(known)), outputs].clamp(0, 1)
        facts["error"] = _error(predicted, truth)
        facts["error_of_means"] = _error(_means(seen, other.moves)[outputs], truth)
        facts["error_of_places"] = _error(_means_of_places(seen, held_out)[known], truth)
    return _trained(samples, facts)


def _error(predicted: Tensor, truth: Tensor) -> float | None:
    """Mean absolute error, None of nothing."""
    return float((predicted - truth).abs().mean()) if len(truth) else None


def _means(samples: Samples, moves: Sequence[str]) -> Tensor:
    """The mean reward of each move, [moves]."""
    taken = [[i for i, each in enumerate(samples.moves) if each == move] for move in moves]
    return torch.stack([samples.rewards[at].mean() for at in taken])


def _means_of_places(samples: Samples, others: Samples) -> Tensor:
    """For each other chunk the mean reward of those at its place in the stream, of all where there are none."""
    places, mean = samples.states[:, -1], samples.rewards.mean()
    means = {place: samples.rewards[places == place].mean() for place in places.tolist()}
    return torch.stack([means.get(place, mean) for place in others.states[:, -1].tolist()])


def _trained(samples: Samples, facts: dict[str, Any]) -> Head:
    """A head that begins as the mean reward of each move, and learns from the state what differs from it.

    The many features of picture and prompt together weigh as much as the few that say where the stream stands: a few
    runs would else teach coincidences.
    """
    moves = sorted(set(samples.moves))
    taken = torch.tensor([moves.index(move) for move in samples.moves])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = Head(moves, samples.states.shape[1], facts)
    with torch.no_grad():
        head.mean.copy_(samples.states.mean(0))
        head.scale.copy_(samples.states.std(0, unbiased=False).clamp_min(1e-3))
        head.scale[:-WHERE] *= math.sqrt((len(head.scale) - WHERE) / WHERE)
        head.out.weight.zero_()
        head.out.bias.copy_(_means(samples, moves))
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1e-1)
    for _ in range(STEPS):
        predicted = head(samples.states)[range(len(taken)), taken]
        loss = (predicted - samples.rewards).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def write_tensors(tensors: dict[str, Tensor], path: Path, described: dict[str, str]) -> None:
    """Write a file of safetensors whole or not at all."""
    part = path.with_suffix(".part")
    save_file(tensors, part, described)
    part.replace(path)


def read_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of safetensors and what describes it. Raises ValueError when it is none."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise ValueError(f"cannot read {what}, {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ValueError(f"{path.name} is not {what}: {error}") from None
