"""Clips: video files, animated images, multi-page TIFF, folders of numbered frames, and arrays.

`open_clip` reads all of them; what a file is, is decided by its first bytes, whatever its name says.
"""

from recursight.data.clips.clip import Clip, Conversion, open_clip
from recursight.data.clips.opened import BadClip

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
ANIMATED_SUFFIXES = (".gif", ".webp", ".png", ".apng", ".tif", ".tiff")
ARRAY_SUFFIXES = (".npy", ".npz")

__all__ = ["ANIMATED_SUFFIXES", "ARRAY_SUFFIXES", "VIDEO_SUFFIXES", "BadClip", "Clip", "Conversion", "open_clip"]
