"""The form of a run that branches from another one."""

from __future__ import annotations

from typing import Any, NamedTuple

from fkv.studio.live.plan import Branch

from .link import number, share

SAME_FUTURE = (
    "A branch differs in something: change the prompt, the seed or the policy of B, then press Branch from here."
)


class Future(NamedTuple):
    """What B does after the branch."""

    prompt: str
    seed: int
    policy: str


def branched(past: dict[str, str], chunk: int, prompt: str, future: Future) -> list[Any]:
    """The form of a run that branches from another one.

    Args:
        past: The fields of the other run's link.
        chunk: The last chunk that both futures have, counted from 1.
        prompt: Of that chunk.
        future: What B does afterwards.

    Returns:
        Values of `Controls.form`; None for the length, and for the model's own threshold.

    Raises:
        ValueError: B would do what A does.
    """
    name = "b" if past.get("view") == "B" else "a"
    policy, seed = past[name], number(past.get("seed")) or 0
    other = Branch(
        chunk, "" if future.prompt.strip() == prompt else future.prompt, None if future.seed == seed else future.seed
    )
    if future.policy == policy and not other.prompt and other.seed is None:
        raise ValueError(SAME_FUTURE)
    lines = [line.partition(":") for line in past.get("story", "").splitlines()]
    kept = [
        f"{chunk_number}:{what.replace(f'{name.upper()} =', 'A =', 1)}"
        for chunk_number, _, what in lines
        if (number(chunk_number.strip()) or 0) <= chunk and not what.strip().startswith("A =" if name == "b" else "B =")
    ]
    threshold = share(past.get("threshold"))
    return [past["prompt"], seed, None, "AB", policy, future.policy, threshold, "\n".join(kept), other.write()]
