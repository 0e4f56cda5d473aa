"""The toy world that the tiny model learnt: `captions` name a scene, `render` draws it, `oracle` reads it."""

FPS = 16
HEIGHT, WIDTH = 96, 160
PROMPT = "a red ball bouncing over the hills at sunset"
"""A prompt that the tiny model knows; runs show it where none is named."""
