"""Write docs/models.md from the entries of released models: `python -m docs.models`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fkv.models import fit
from fkv.models.release import BASES, DECODERS_UNVERIFIED, RESOLUTIONS, Release, Setup, Source
from fkv.models.releases import RELEASES

PAGE = Path(__file__).with_suffix(".md")
INTRODUCTION = f"""\
# Released models

`python -m fkv stream --model NAME` and `python app.py --model NAME` check that a model fits, download its files, and
stream it. `python -m fkv fit --model NAME` counts what it needs in memory, for any policy
(by default the cache that the model begins with), resolution and precision.
A model begins with the cache rule that it was released with, or with Forcing-KV where its head roles are known; any
other can be chosen. For a checkpoint of your own see [README.md](../README.md#real-models). None of these models has
been run with its real weights: loading is tested on small checkpoints of the released forms.

The memory is that of a GPU in bfloat16 with the VAE, at {", ".join(RESOLUTIONS)}, counted and not measured. A revision
in a file's name is the commit that is loaded; without one it is the newest when the file is first downloaded.

Text encoder, tokenizer and decoder are files of their own. {DECODERS_UNVERIFIED}

This page is written from `fkv/models/releases.py` by `python -m docs.models`.
"""


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([INTRODUCTION, *map(section, RELEASES)])


def section(release: Release) -> str:
    """Return what there is to say about one model."""
    rows = {**facts(release), "GPU memory": memory(release)}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    unverified = f"\nTaken from other code and not verified: {release.unverified}\n" if release.unverified else ""
    return f"## {release.name}\n\n{release.help[0].upper()}{release.help[1:]}.\n\n| | |\n|-|-|\n{table}\n{unverified}"


def facts(release: Release) -> dict[str, str]:
    """Return what the entry of a model says, by what it is about."""
    steps = f"steps {_numbers(release.steps)} of 1000 with shift {release.shift:g}"
    if release.solver == "unipc":
        steps = f"{len(release.steps)} steps of UniPC with shift {release.shift:g}"
    if release.timesteps:
        steps = f"timesteps {_numbers(release.timesteps)}"
    first = f" (first chunk {_numbers(release.first_steps)})" if release.first_steps else ""
    plural = "s" if release.frames_per_chunk > 1 else ""
    rows = {
        "files": ", ".join(map(_file, release.sources)),
        "licence": release.licence,
        "architecture": release.base,
        "sampling": f"chunks of {release.frames_per_chunk} latent frame{plural}, {steps}{first}; "
        f"{BASES[release.base].fps} video frames per second",
        "cache as released": f"`{release.window}`",
    }
    return {**rows, "head roles": f"released, for `{release.hybrid}`"} if release.roles else rows


def memory(release: Release) -> str:
    """Return what a release needs on a GPU under the cache that it begins with, by resolution."""
    needs = {size: fit.fit(release, Setup(size), release.policies[0], device="cuda", free={}) for size in RESOLUTIONS}
    sizes = {size: BASES[release.base].latent_size(size) for size in RESOLUTIONS}
    spatial = BASES[release.base].codec.spatial
    return ", ".join(
        f"{need.total('device') / 1e9:.0f} GB at {sizes[size][0] * spatial} x {sizes[size][1] * spatial}"
        for size, need in needs.items()
    )


def _numbers(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _file(source: Source) -> str:
    revision = "" if source.revision == "main" else f" at `{source.revision[:8]}`"
    return f"[{source.repo}](https://huggingface.co/{source.repo}) `{source.file}`{revision}, {source.gigabytes:g} GB"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
