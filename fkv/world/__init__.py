"""The toy world the tiny model learnt: `captions` says it, `render` draws it, `oracle` reads it back from pixels."""

FPS = 16
HEIGHT, WIDTH = 96, 160
