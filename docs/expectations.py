"""What we expect of each policy on held-out prompts, written before it was measured, and what then surprised us.

The table in docs/policies.md sets both beside the figures. An expectation is not changed once its record is there.
"""

from __future__ import annotations

EXPECTED: dict[str, str] = {
    "full": "the reference; slow to follow a new prompt, as all of the old one stays in view",
    "sliding-window": "as adherent as full, and quicker to follow a new prompt",
    "forcing-kv": "as full in a fraction of the bytes",
    "dummy-forcing": "fewer bytes still; motion suffers where a head is classed wrongly",
    "longlive": "as sliding-window; switches late, as nothing is computed anew under the new prompt",
    "shot-sink": "as longlive, with a window nearly three times as long",
    "infinity-rope": "little drift, as positions stay in the range of training; chunks join less smoothly",
    "deep-forcing": "little drift, as half of what is read is the opening; slow to follow a new prompt",
    "deep-sink": "as deep-forcing; its two chosen frames change little",
    "near-sink": "as deep-sink, with less of the opening and so quicker to switch",
    "recency": "quicker to switch than a window without weights, with rougher chunk borders",
    "rolling-sink": "the least drift and the worst switches: most of what it reads is the opening",
    "relax-forcing": "reads least; smooth, with motion that repeats",
    "tether-cache": "little drift of colours, as what it remembers is tied to statistics of the opening",
    "mem-rope": "as a short window; two means of the past are too blurred to help",
    "fade-mem": "as mem-rope, with a sharper near past",
    "ema-sink": "follows a new prompt, as the sink forgets; colours drift more than with a fixed sink",
    "self-gradient": "as longlive with less drift, as the sink stays as far away as in training",
    "ca2-vdm": "as full up to its 24 frames and as a long window after them; flickers a little from its noise",
    "mpcache": "nearer to full than a window that reads as many keys",
    "window-kv": "as sliding-window with as many bytes",
    "id-forcing": "as longlive; its writing without the sink suits a model that was trained so, which this one was not",
    "pyramid-forcing": "as full for adherence; rougher, as its classes of heads come from head roles here",
    "memflow": "switches best, as the prompt's words choose what is remembered",
    "context-forcing": "as longlive, and keeps what was there before a change",
    "random-roles": "worse than forcing-kv, or head roles do not matter in this model",
    "no-anchor": "rougher chunk borders than forcing-kv",
    "no-dynamic": "worse motion than forcing-kv",
    "per-step": "as full",
}
"""Policy -> what its rule lets expect against `full`."""
SURPRISING: dict[str, str] = {}
"""Policy -> where the record says otherwise."""
