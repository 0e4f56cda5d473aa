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
SURPRISING: dict[str, str] = {
    "full": "worse than every window at 60 s: a tenth of the prompt is lost, colours drift three times as far, chunks "
    "join less smoothly; its history is then far longer than any it was trained on. A new prompt acts within a chunk, "
    "as under every policy here",
    "sliding-window": "more adherent than full at 60 s",
    "forcing-kv": "better than full: adherence, drift, chunk borders",
    "dummy-forcing": "adherence, drift and chunk borders of sliding-window; how much moves is not measured here",
    "longlive": "switches within a chunk, as all others",
    "shot-sink": "the longer window brings nothing that is measured here",
    "infinity-rope": "chunks join as smoothly as under any window; colours drift no less",
    "deep-forcing": "switches within a chunk; drifts as any window",
    "near-sink": "switches as all others",
    "recency": "neither quicker to switch nor rougher",
    "rolling-sink": "neither the least drift nor slow switches",
    "relax-forcing": "rougher chunk borders, a sixth of the motions wrong at the end, and it holds half of what full "
    "does, for all that it reads little",
    "tether-cache": "colours drift more than under every other rule but full and mpcache",
    "mem-rope": "no harm of the blurred means is measured here",
    "ema-sink": "colours drift no more than with a fixed sink",
    "self-gradient": "no less drift than longlive",
    "ca2-vdm": "flickers less than sliding-window; colours drift a little more",
    "mpcache": "what it holds grows like full's, and with it drift and rough borders",
    "window-kv": "smoother chunk borders than sliding-window, with fewer bytes",
    "id-forcing": "no harm of its writing without the sink is measured here",
    "memflow": "all policies switch within a chunk, so it cannot be better; slightly rougher borders than a window",
    "context-forcing": "rougher chunk borders than longlive, and a fifth of the motions wrong at the end",
    "random-roles": "as forcing-kv: which heads are static makes no difference that is measured here",
    "no-dynamic": "colours drift a little less than under forcing-kv; how much moves is not measured here",
    "per-step": "the least adherent, already at 5 s, with the roughest borders: training never met such caches of "
    "noisy frames",
}
"""Policy -> where the record says otherwise."""
