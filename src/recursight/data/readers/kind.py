"""Whether the files of a class folder or a list are clips or stills.

- Video files, and folders of frames, are clips. A still image beside them is refused.
- Images are clips if each has more than one frame (animated GIF, WebP or PNG, TIFF of several pages). As soon as one
  has a single frame, all are stills, and animations give their first frame.
- Arrays (.npy, .npz) are clips, unless there are stills; then they do not belong to the data set.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from recursight.data.clips import ANIMATED_SUFFIXES, ARRAY_SUFFIXES, VIDEO_SUFFIXES
from recursight.data.clips.animation import frames_in
from recursight.data.images import without_warnings
from recursight.data.records import leaves
from recursight.errors import InputError

IMAGE_SUFFIXES = (  # a tuple, for str.endswith
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif"),
    *(".bmp", ".tif", ".tiff", ".tga", ".pbm", ".pgm", ".pnm", ".ppm"),
)
CLIP_SUFFIXES = (*VIDEO_SUFFIXES, *ANIMATED_SUFFIXES, *ARRAY_SUFFIXES)


class Kind(NamedTuple):
    """What was found.

    Attributes:
        clips: whether the files are clips.
        assumption: what was assumed, as a sentence; empty if the names leave no doubt.
    """

    clips: bool
    assumption: str = ""


def kind_of(entries: Iterable[tuple[str, Path]], root: Path) -> Kind:
    """Looks at all names, and into images until one has a single frame.

    Args:
        entries: a name for messages, and a file or folder of frames, each.
        root: of the source, resolved; what lies outside is not opened.

    Raises:
        InputError: if clips and stills are mixed.
    """
    video = still = animation = array = folder = None
    for name, path in entries:
        if not name:
            continue  # an incomplete row, which is reported later
        lower = name.lower()
        if lower.endswith(VIDEO_SUFFIXES):
            video = video or name
        elif lower.endswith(ARRAY_SUFFIXES):
            array = array or name
        elif lower.endswith((*IMAGE_SUFFIXES, ".apng")):
            if still is None:
                if lower.endswith(ANIMATED_SUFFIXES):
                    frames = _frames_in(path, root)
                    animation = animation or (name if frames and frames > 1 else None)
                    still = name if frames == 1 else None
                else:
                    still = name
        elif path.is_dir() and not path.is_symlink():
            folder = folder or name
    clip = video or folder
    if clip is not None and still is not None:
        raise InputError(f"{clip} is a clip, but {still} is a still image; import clips and stills separately.")
    if clip is None and still is None and animation is not None:
        return Kind(True, f"Every image has several frames, such as {animation}: each was read as a clip.")
    if folder is not None:
        return Kind(True, f"Folders of numbered frames, such as {folder}/, were read as one clip each.")
    return Kind(clip is not None or (array is not None and still is None))


def _frames_in(path: Path, root: Path) -> int | None:
    """Number of frames; None if the file is outside, or cannot be read, which is reported later."""
    try:
        with without_warnings():
            return None if leaves(path, root) else frames_in(path)
    except (OSError, ValueError, RuntimeError):  # a null character, or a loop of links
        return None
