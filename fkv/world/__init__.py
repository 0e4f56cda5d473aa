"""The toy world that the tiny model learnt: `captions` name a scene, `render` draws it, `oracle` reads it."""

FPS = 16
HEIGHT, WIDTH = 96, 160
