"""The released models. Adding one is one entry of `RELEASES`.

An entry says in `unverified` what its sources do not settle. Files of the Hub were not opened for entries with such a
sentence; what is written of them is what public code reads, which the sentence names.
"""

from __future__ import annotations

from dataclasses import replace

from .release import Lora, Release, Source

SHIPPED = {
    "tiny": "the toy-world model that ships with the studio; streams on two CPU cores",
    "tiny-memory": "the same for a toy world in which things leave and return (`fkv eval --recall`); still in training",
}
"""Name of a model in assets/ -> its help."""

ROLLING = "sliding-window:sink_frames=0,window_frames=21"
FOUR_STEPS = (1000, 750, 500, 250)

SELF_FORCING = Release(
    "self-forcing",
    "wan-1.3b",
    Source("gdhe17/Self-Forcing", "checkpoints/self_forcing_dmd.pt", 5.7, "2f8b779212da279d212c22a509b66ad6552f350e"),
    "CC BY-NC-SA 4.0",
    help="Wan 1.3B distilled into a streaming model on its own rollouts (arXiv 2506.08009)",
    roles="self_forcing",
    window=ROLLING,
)

_LONGLIVE = "Efficient-Large-Model/LongLive-1.3B", "cda9138d93872ef109d9a74c270184eb3a5acc6e"
LONGLIVE = Release(
    "longlive",
    "wan-1.3b",
    Source(_LONGLIVE[0], "models/longlive_base.pt", 5.7, _LONGLIVE[1]),
    "CC BY-NC-SA 4.0",
    help="Self Forcing tuned for minutes of video and for prompts that change on the way (arXiv 2509.22622)",
    key="generator",
    roles="longlive",
    loras=(Lora(Source(_LONGLIVE[0], "models/lora.pt", 2.8, _LONGLIVE[1]), alpha=256),),
    window="sliding-window:sink_frames=3,window_frames=12",
    hybrid="forcing-kv:start_chunk=2",
)
LONGLIVE_RELATIVE = replace(
    LONGLIVE,
    name="longlive-relative",
    help="LongLive that reads its cache at relative positions, for streams without end; the same files",
    roles=None,  # Forcing-KV reads at true positions
    window="longlive:relative=true",
)

CAUSAL_FORCING = Release(
    "causal-forcing",
    "wan-1.3b",
    Source("zhuhz22/Causal-Forcing", "chunkwise/causal_forcing.pt", 5.7, "634dc0df042be8133173c3eb4d9efb5da1fba9ca"),
    "Apache-2.0",
    help="Self Forcing with an autoregressive teacher (arXiv 2602.02214), the chunk-wise model",
    key="generator",
    roles="causal_forcing",
    window=ROLLING,
)


def _framewise(file: str) -> Source:
    """A frame-wise model of Causal Forcing."""
    return Source("zhuhz22/Causal-Forcing", file, 5.7, "2f8eb8bb6eeb1238da9d13e5420d342a74d634a6")


CAUSAL_FORCING_FRAMEWISE = Release(
    "causal-forcing-framewise",
    "wan-1.3b",
    _framewise("framewise/causal_forcing.pt"),
    "Apache-2.0",
    help="Causal Forcing, frame by frame (arXiv 2602.02214)",
    window=ROLLING,
    frames_per_chunk=1,
    unverified="Key, names, steps, size and revision are those that hiroki-abe-58/ComfyUI-CausalForcing reads and "
    "checks.",
)
CAUSAL_FORCING_2_STEP = replace(
    CAUSAL_FORCING_FRAMEWISE,
    name="causal-forcing-2step",
    weights=_framewise("causal-forcing++/framewise-2step.pt"),
    help="Causal Forcing++, frame by frame in two steps, the first frame in four (arXiv 2605.15141)",
    steps=(1000, 500),
    first_steps=FOUR_STEPS,
)
CAUSAL_FORCING_1_STEP = replace(
    CAUSAL_FORCING_2_STEP,
    name="causal-forcing-1step",
    weights=_framewise("causal-forcing++/framewise-1step.pt"),
    help="Causal Forcing++, frame by frame in one step, the first frame in four (arXiv 2605.15141)",
    steps=(1000,),
)

SELF_GRADIENT_FORCING = Release(
    "self-gradient-forcing",
    "wan-1.3b",
    Source("JunhaoZhuang/Self_Gradient_Forcing", "chunkwise/ar/model.pt", 11.4),
    "Apache-2.0",
    help="Causal Forcing trained with gradients through its cache (arXiv 2607.20368), the chunk-wise model",
    window="self-gradient",
    unverified="Key and names are those that Dwell-Jing/commit-forcing reads, the place is that of the authors' "
    "download script; the size is a guess (two copies in float32), and no revision is pinned. Steps and shift are "
    "assumed to be Causal Forcing's: the configuration was not read. The cache rule is written from a copy of the "
    "authors' code (vlgdglv/Self_Gradient_Forcing) and not checked against it by numbers.",
)
SELF_GRADIENT_FORCING_FRAMEWISE = replace(
    SELF_GRADIENT_FORCING,
    name="self-gradient-forcing-framewise",
    weights=Source("JunhaoZhuang/Self_Gradient_Forcing", "framewise/ar/model.pt", 11.4),
    help="Self Gradient Forcing, frame by frame (arXiv 2607.20368)",
    window="self-gradient:sink_frames=4,window_frames=21",
    frames_per_chunk=1,
)

MEMFLOW = Release(
    "memflow",
    "wan-1.3b",
    Source("KlingTeam/MemFlow", "base.pt", 5.7),
    "not found; LongLive, on which it builds, is CC BY-NC-SA 4.0",
    help="LongLive with a bank of frames that the prompt asks for (arXiv 2512.14699)",
    key="generator",
    loras=(Lora(Source("KlingTeam/MemFlow", "lora.pt", 2.8), alpha=256),),
    window="memflow",
    unverified="Files are those that daydreamlive/scope loads; the authors' newest configuration names an adapter "
    "model.pt instead of lora.pt. Sizes are LongLive's, and no revision is pinned.",
)

REWARD_FORCING = Release(
    "reward-forcing",
    "wan-1.3b",
    Source("JaydenLu666/Reward-Forcing-T2V-1.3B", "rewardforcing.pt", 5.7),
    "not found",
    help="Self Forcing tuned by rewards for motion, with old frames averaged into the sink (arXiv 2512.04678)",
    window="ema-sink",
    unverified="daydreamlive/scope reads the weights from the top of the file, the authors' command from "
    "`generator_ema`; both load here. Size and licence were not found, and no revision is pinned.",
)

CAUSVID = Release(
    "causvid",
    "wan-1.3b",
    Source("tianweiy/CausVid", "autoregressive_checkpoint/model.pt", 5.7),
    "CC BY-NC-SA 4.0",
    help="Wan 1.3B distilled from its model of whole clips (arXiv 2412.07772), in three steps",
    key="generator",
    window=ROLLING,
    timesteps=(1000, 757, 522),
    unverified="Key, names and steps are those of a copy of the authors' code (GoatWu/CausVid-Plus); the size was not "
    "found there, and no revision is pinned. The licence is the one that the project is known under; no file that was "
    "read states it. The authors take noise levels from a table of 1000, up to 0.0005 off the 0.757 and 0.522 here.",
)

CONTEXT_FORCING = Release(
    "context-forcing",
    "wan-1.3b",
    Source("ShuoChen20/context_forcing", "model.pt", 11.4),
    "CC BY-NC-SA 4.0",
    help="Self Forcing with a teacher that sees what came before its clip (arXiv 2602.06028)",
    window="context-forcing",
    unverified="The cache rule is read from TIGER-AI-Lab/Context-Forcing and not checked against it by numbers; what "
    "its slow memory holds is clean here, mostly noisy there. Key and names are those that Dwell-Jing/commit-forcing "
    "reads at revision d44ae93b, which is not pinned here; steps and shift are assumed to be Self Forcing's, and the "
    "size is a guess (two copies in float32).",
)

LONGLIVE_2 = Release(
    "longlive-2",
    "wan2.2-5b",
    Source("Efficient-Large-Model/LongLive-2.0-5B", "model_bf16.pt", 10.0, "8521079b863720a57c1a8d9b19c8d9e6ccb04c0f"),
    "Apache-2.0",
    help="LongLive 2.0 on Wan 2.2 5B: 24 frames per second in chunks of 8, 704 x 1280 at 720p (arXiv 2605.18739)",
    key="generator",
    window="shot-sink",
    solver="unipc",
    frames_per_chunk=8,
    unverified="Sampler and cache are read from a copy of the authors' code (woonyee28/LongLive) and not checked "
    "against it by numbers; the sampler equals that of diffusers. The authors take weights from `generator`, `model` "
    "or the top of the file; which of them it is was not seen. The licence is that of the code.",
)

RAVEN = Release(
    "raven",
    "wan-1.3b",
    Source("mvp-lab/RAVEN", "cmgrpo_raven_merge.pt", 5.7),
    "CC BY-NC 4.0",
    help="streaming model trained with clean and noisy history interleaved (arXiv 2605.15190), with CM-GRPO merged",
    roles="raven",
    window=ROLLING,
)

KREA_REALTIME = Release(
    "krea-realtime",
    "wan-14b",
    Source(
        "krea/krea-realtime-video",
        "krea-realtime-video-14b.safetensors",
        28.6,
        "6b5d204f9d14c3c3a59608e49d1da7fad90daf8d",
    ),
    "Apache-2.0",
    help="Wan 14B as a streaming model; a data-centre GPU",
    roles="krea_realtime_14b",
    window="recompute:window_frames=6",
    hybrid="forcing-kv:sink_frames=0,dynamic_anchor_frames=3,dynamic_frames=0",
)

RELEASES = (
    SELF_FORCING,
    LONGLIVE,
    LONGLIVE_RELATIVE,
    CAUSAL_FORCING,
    CAUSAL_FORCING_FRAMEWISE,
    CAUSAL_FORCING_2_STEP,
    CAUSAL_FORCING_1_STEP,
    SELF_GRADIENT_FORCING,
    SELF_GRADIENT_FORCING_FRAMEWISE,
    MEMFLOW,
    REWARD_FORCING,
    CAUSVID,
    CONTEXT_FORCING,
    RAVEN,
    LONGLIVE_2,
    KREA_REALTIME,
)
