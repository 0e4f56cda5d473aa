"""Figures that the paper reports, to print beside ours. They were measured elsewhere and are never mixed with ours."""

from __future__ import annotations

from typing import Any

OFFICIAL: dict[str, Any] = {
    "source": "arXiv 2605.09681",
    "hardware": "one NVIDIA H200, as reported there",
    "scope": "video frames per second of denoising; text encoder and decoder excluded; 480P unless said otherwise",
    "rows": [
        {
            "model": "Self Forcing 1.3B, 30 s",
            "full": "about 19",
            "forcing-kv": "over 29",
            "ratio": "1.50",
            "second_hand": True,
        },
        {
            "model": "LongLive 1.3B, 30 s",
            "full": "21.1",
            "forcing-kv": "26.8",
            "ratio": "1.27 to 1.35",
            "second_hand": True,
        },
        {
            "model": "Causal Forcing 1.3B, 5 s",
            "full": "22.81",
            "forcing-kv": "27.75",
            "ratio": "1.22",
            "second_hand": False,
        },
        {"model": "Krea 14B", "full": "4.13", "forcing-kv": "5.22", "ratio": "1.26", "second_hand": True},
        {"model": "1.3B at 1080P", "full": None, "forcing-kv": None, "ratio": "2.82", "second_hand": False},
    ],
}
