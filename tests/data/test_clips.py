"""Opening and decoding one clip: every kind of file, rates, crops, and everything that can be wrong with it."""

import io
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recursight.data.clips import BadClip, Conversion, open_clip, opened, video

from .clip_files import (
    HEIGHT,
    KINDS,
    LOSSLESS,
    WIDTH,
    bar,
    left_edges,
    write_animation,
    write_numbered,
    write_sound,
    write_video,
)


def read(path: Path | bytes, **conversion: object) -> tuple[np.ndarray, float]:
    """All frames and their rate."""
    with open_clip(path, Conversion(**conversion)) as clip:  # type: ignore[arg-type]
        frames = np.concatenate(list(clip.chunks()))
        assert frames.shape == (clip.count, *clip.shape)
        return frames, clip.rate


def refusal(path: Path | bytes, **conversion: object) -> str:
    with pytest.raises(BadClip) as bad:
        read(path, **conversion)
    sentence = str(bad.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_frames_in_order(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name, bar())
    frames, rate = read(tmp_path / name)
    assert frames.shape == (12, HEIGHT, WIDTH, 3)
    assert rate == {"mp4": 30, "mov": 30, "avi": 30, "mkv": 30, "webm": 30}.get(name.partition(".")[2], 25)
    np.testing.assert_allclose(left_edges(frames), 3 * np.arange(12), atol=1)
    if name in LOSSLESS:
        np.testing.assert_array_equal(frames, bar())
    if (tmp_path / name).is_file():
        np.testing.assert_array_equal(read((tmp_path / name).read_bytes())[0], frames)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "clip.npy"])
def test_the_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name, bar())
    (tmp_path / name).rename(tmp_path / "clip.avi")
    assert len(read(tmp_path / "clip.avi")[0]) == 12


def test_grey_clips_have_one_channel(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", bar(), "ffv1", pixel_format="gray")
    np.save(tmp_path / "a.npy", bar()[..., 0])
    assert read(tmp_path / "a.mkv")[0].shape == (12, HEIGHT, WIDTH, 1)
    assert read(tmp_path / "a.npy")[0].shape == (12, HEIGHT, WIDTH, 1)
    assert read(tmp_path / "a.npy", channels="rgb")[0].shape == (12, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.npy"])
def test_crop_is_in_pixels_of_the_source_and_before_resizing(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name, bar())
    whole = read(tmp_path / name, channels="grey")[0]
    cut = read(tmp_path / name, channels="grey", crop=(4, 10, 16, 24))[0]
    np.testing.assert_array_equal(cut, whole[:, 4:20, 10:34])
    assert read(tmp_path / name, crop=(4, 10, 16, 24), size=(8, 12), channels="grey")[0].shape == (12, 8, 12, 1)
    assert refusal(tmp_path / name, crop=(20, 0, 20, 20)) == (
        f"has frames of {HEIGHT}×{WIDTH} pixels; prepare.frames.crop goes to row 40, column 20."
    )


def test_a_lower_rate_takes_the_nearest_earlier_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", bar())
    for rate, expected in ((15, [0, 2, 4, 6, 8, 10]), (10, [0, 3, 6, 9]), (20, [0, 1, 3, 4, 6, 7, 9, 10])):
        frames, stored = read(tmp_path / "a.mp4", rate=rate)
        assert stored == rate
        np.testing.assert_allclose(left_edges(frames), 3 * np.array(expected), atol=1)


def test_a_higher_rate_repeats_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", bar())
    frames, _ = read(tmp_path / "a.mp4", rate=60)
    np.testing.assert_allclose(left_edges(frames), np.repeat(3 * np.arange(12), 2), atol=1)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_rates_that_containers_round_keep_every_frame(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, bar(40), rate=Fraction(30000, 1001))
    frames, rate = read(tmp_path / name)
    assert (len(frames), rate) == (40, pytest.approx(29.97, abs=0.01))
    np.testing.assert_array_equal(frames, read(tmp_path / name, rate=rate)[0])


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_variable_rate_is_placed_by_time(tmp_path: Path, name: str) -> None:
    times = [0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0, 1.1]
    write_video(tmp_path / name, bar(8), times=times)
    frames, rate = read(tmp_path / name)
    assert rate == pytest.approx(10)
    expected = [0, 1, 2, 3, 3, 3, 3, 3, 4, 5, 6, 7]  # the fourth frame stands for half a second
    np.testing.assert_allclose(left_edges(frames), 3 * np.array(expected), atol=1)


def test_durations_of_an_animation(tmp_path: Path) -> None:
    write_animation(tmp_path / "a.gif", bar(4), milliseconds=500)
    assert read(tmp_path / "a.gif")[1] == 2
    np.testing.assert_allclose(left_edges(read(tmp_path / "a.gif", rate=4)[0]), [0, 0, 3, 3, 6, 6, 9, 9], atol=1)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_of_phones(tmp_path: Path, rotation: int, turns: int) -> None:
    write_video(tmp_path / "a.mp4", bar(), rotation=rotation)
    write_video(tmp_path / "b.mp4", bar())
    np.testing.assert_array_equal(read(tmp_path / "a.mp4")[0], np.rot90(read(tmp_path / "b.mp4")[0], turns, (1, 2)))


def test_a_late_start_does_not_matter(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", bar(8), times=[5 + number / 10 for number in range(8)])
    frames, rate = read(tmp_path / "a.mkv")
    assert (len(frames), rate) == (8, pytest.approx(10))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx")]
)
def test_truncated_videos(tmp_path: Path, name: str, codec: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, HEIGHT, WIDTH, 3), np.uint8)
    write_video(tmp_path / name, noise, codec, **({"movflags": "faststart"} if name.endswith("mp4") else {}))
    whole = (tmp_path / name).read_bytes()
    for share in (0.3, 0.6, 0.9):
        assert "truncated" in refusal(whole[: int(len(whole) * share)])
    assert refusal(whole[:40]).startswith(("is not a video that can be opened: ", "contains no video"))


def test_a_video_without_its_index(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", bar(60))
    whole = (tmp_path / "a.mp4").read_bytes()
    assert refusal(whole[: len(whole) // 2]).startswith("is not a video that can be opened: ")


def test_damaged_videos_are_refused_or_have_all_frames(tmp_path: Path) -> None:
    """What FFmpeg conceals cannot be told from a whole frame, but none is missing, and nothing else is raised."""
    noise = np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), np.uint8)
    write_video(tmp_path / "a.mp4", noise)
    whole = (tmp_path / "a.mp4").read_bytes()
    draw = np.random.default_rng(1)
    refused = []
    for _ in range(30):
        broken = bytearray(whole)
        for place in draw.integers(0, len(whole), 20):
            broken[place] = draw.integers(256)
        try:
            assert len(read(bytes(broken))[0]) > 0
        except BadClip as bad:
            refused.append(str(bad))
    assert len(refused) > 5
    assert all(sentence.endswith(".") for sentence in refused)


def test_empty_missing_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is no video")
    assert refusal(tmp_path / "empty.mp4") == "is empty."
    assert refusal(tmp_path / "text.mp4") == "is neither a video nor an animation that can be decoded."
    assert refusal(tmp_path / "missing.mp4") == "is listed but missing."


def test_sound_alone(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.mp4")
    assert refusal(tmp_path / "a.mp4") == "contains only sound."


def test_no_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", np.zeros((0, HEIGHT, WIDTH, 3), np.uint8))
    assert refusal(tmp_path / "a.mkv") in ("has no frames.", "is not a video that can be opened: end of file.")
    np.save(tmp_path / "a.npy", np.zeros((0, 4, 4), np.uint8))
    assert refusal(tmp_path / "a.npy") == "has no frames."
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder") == "has no frames."


def test_frames_of_several_sizes(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a", bar(3))
    Image.new("RGB", (5, 5)).save(tmp_path / "a" / "frame0002.png")
    assert refusal(tmp_path / "a") == "changes its size at frame0002.png."


def test_a_numbered_folder_with_a_gap_or_a_bad_frame(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a", bar(4))
    (tmp_path / "a" / "frame0004.png").write_bytes(b"")
    assert refusal(tmp_path / "a") == "contains frame0004.png, which is empty."
    (tmp_path / "a" / "frame0003.png").unlink()
    assert refusal(tmp_path / "a").startswith("has no frame frame0003.png; ")


def test_a_frame_that_is_a_link_to_elsewhere(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a", bar(3))
    (tmp_path / "a" / "frame0002.png").rename(tmp_path / "secret.png")
    (tmp_path / "a" / "frame0002.png").symlink_to(tmp_path / "secret.png")
    assert refusal(tmp_path / "a") == "contains frame0002.png, a link that points outside the folder."


def test_playlists_are_not_opened(tmp_path: Path) -> None:
    """FFmpeg would open what they name: other files, and addresses."""
    write_video(tmp_path / "a.mp4", bar())
    (tmp_path / "b.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path / 'a.mp4'}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "c.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'a.mp4'}\n")
    for name in ("b.mp4", "c.mp4"):
        assert refusal(tmp_path / name) == "is neither a video nor an animation that can be decoded."


def test_codecs_that_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.avi", bar(), "mpeg4")
    monkeypatch.setattr(video, "CODECS", ("h264",))
    assert refusal(tmp_path / "a.avi") == "is coded as mpeg4; convert it, for instance to H.264."


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode() + b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9, 4, 4), }", b"0" * 100), "is truncated: it has 228"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 4), }", b"0" * 100), "is too long: it has 228"),
        (npy("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 4, 4), }", b"0" * 16), "is in Fortran's order"),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 2), }", b"0" * 16),
            "contains float32; clips are",
        ),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 2, 2), }", b"0" * 16), "contains object; clips are"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4), }", b"0" * 16), "has the shape 4×4; clips are"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 2, 2), }", b"0" * 16), "has the shape 1×4×2×2"),
        (
            npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9, 99999, 99999), }"),
            "has frames of 99999×99999 pixels",
        ),
        (
            npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 4, 4), }"),
            "has more than 4,000,000 frames",
        ),
        (npy("no header"), "is not a NumPy array that can be read: "),
        (b"\x93NUMPY\x09\x00rest", "has the unknown format version 9.0."),
        (zipped(("notes.txt", b"hello")), "must contain one array, not 0 (none)."),
        (zipped(("a.npy", b""), ("b.npy", b"")), "must contain one array, not 2 ('a.npy', 'b.npy')."),
        (b"PK\x03\x04 but no archive", "is not a NumPy array that can be read: "),
    ],
)
def test_arrays_that_are_no_clips(content: bytes, sentence: str) -> None:
    assert refusal(content).startswith(sentence)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[[{"a": 1}]]], dtype=object), allow_pickle=True)
    assert refusal(tmp_path / "a.npy") == "contains object; clips are uint8."


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.npy", "clip"])
def test_limits_hold_before_anything_is_decoded(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    KINDS[name](tmp_path / name, bar())
    with (
        pytest.raises(BadClip, match=r"has 12 frames of 32×48, more than 1,000 pixels; cut it into parts\."),
        open_clip(tmp_path / name, max_pixels=1000),
    ):
        pass
    monkeypatch.setattr(opened, "MAX_FRAME_PIXELS", 100)
    assert refusal(tmp_path / name) == "has frames of 32×48 pixels; at most 100 pixels are possible."


def test_too_many_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", bar())
    monkeypatch.setattr(video, "MAX_FRAMES", 5)
    monkeypatch.setattr(opened, "MAX_FRAMES", 5)
    assert refusal(tmp_path / "a.mp4") == "has more than 5 frames; cut it into parts."


def test_a_header_that_promises_days(tmp_path: Path) -> None:
    """Two frames, a month apart: resampled at a high rate, they would fill the disk."""
    write_video(tmp_path / "a.mkv", bar(3), "ffv1", times=[0, 0.04, 30 * 86400], pixel_format="yuv420p")
    assert "cut it into parts" in refusal(tmp_path / "a.mkv", rate=100)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # a pass over a source ignores them too
def test_frames_of_a_damaged_animation(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, HEIGHT, WIDTH, 3), np.uint8)
    for name in ("a.png", "a.gif", "a.tiff"):
        write_animation(tmp_path / name, noise)
        whole = (tmp_path / name).read_bytes()
        assert refusal(whole[: len(whole) * 2 // 3])
