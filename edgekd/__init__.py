"""Distil a big detector into a small one, build it for every chip you own, ship it as one file."""

from __future__ import annotations

__version__ = "0.1.0"
