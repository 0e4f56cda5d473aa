"""The models as text. Imports no torch: a list of names is there at once."""

from __future__ import annotations

from textwrap import TextWrapper

from .release import BASES, DECODERS_UNVERIFIED, RESOLUTIONS, Release, Setup
from .releases import RELEASES, SHIPPED

WRAPPER = TextWrapper(
    120, initial_indent="    ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
)


def table(memory: bool = False) -> str:
    """Return the models as text: what they are, where they come from, and what is not verified of them.

    Args:
        memory: Also count what each needs on a GPU, by resolution. That takes seconds.
    """
    lines = [f"{name}: {text}" for name, text in SHIPPED.items()]
    for release in RELEASES:
        lines.append(f"{release.name}: {release.help}")
        lines += map(WRAPPER.fill, _facts(release, memory))
    lines += [
        *WRAPPER.wrap(f"not verified: {DECODERS_UNVERIFIED}"),
        f"--checkpoint FILE --base {'|'.join(BASES)} runs a file of your own; `fkv profile` then gives its heads roles",
        "`fkv fit --model NAME` counts the memory that a model needs, `fkv models --memory` that of all",
    ]
    return "\n".join(lines)


def _facts(release: Release, memory: bool) -> list[str]:
    """Return the lines of a real model in `table`."""
    files = " + ".join(f"{source.repo}/{source.file} ({source.gigabytes:g} GB)" for source in release.sources)
    first = f" ({len(release.first_steps)} first)" if release.first_steps else ""
    count = len(release.timesteps or release.steps)
    steps = f"{count} step{'s' if count > 1 else ''}{first}"
    hybrid = f"; or {release.hybrid}" if release.roles else ""
    lines = [
        f"{BASES[release.base].name}, {release.licence}; {files}",
        f"chunks of {release.frames_per_chunk} latent frames, {steps}, {release.window}{hybrid}",
    ]
    if memory:
        lines.append(_memory(release))
    return lines + ([f"not verified: {release.unverified}"] if release.unverified else [])


def _memory(release: Release) -> str:
    """Return what a real model needs on a GPU under the cache that it begins with."""
    from .fit import fit

    needs = {size: fit(release, Setup(size), release.policies[0], device="cuda", free={}) for size in RESOLUTIONS}
    return "GPU memory with it: " + ", ".join(
        f"{need.total('device') / 1e9:.0f} GB at {size}" for size, need in needs.items()
    )
