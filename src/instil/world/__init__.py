"""A small closed world in plain English whose truth is known; see docs/world.md."""
