from pathlib import Path

import numpy as np
from PIL import Image

from recursight.data import sheet
from recursight.data.findings import Findings
from recursight.data.readers import open_source

from .pictures import pictures, splits_of, write_folder, write_idx


def drawn(folder: Path, path: Path, per_class: int = 4) -> np.ndarray:
    findings = Findings(open_source(folder))
    sheet.draw(path, findings, sheet.survey(findings, per_class))
    return np.asarray(Image.open(path))


def test_a_row_per_class_and_a_column_per_sample(flowers: Path, tmp_path: Path) -> None:
    pixels = drawn(flowers, tmp_path / "sheet.png")
    pitch = sheet.CELL + sheet.GAP
    assert pixels.shape == (2 * pitch + sheet.GAP, sheet.LABEL_WIDTH + 4 * pitch + sheet.GAP, 3)
    for row in range(2):
        for column in range(4):
            top, left = sheet.GAP + row * pitch, sheet.LABEL_WIDTH + column * pitch
            assert (pixels[top : top + sheet.CELL, left : left + sheet.CELL] != 255).any()


def test_the_same_images_whatever_the_format(tmp_path: Path) -> None:
    rows = splits_of(pictures(), False)
    write_folder(tmp_path / "folder", rows)
    write_idx(tmp_path / "idx", rows)
    first, second = drawn(tmp_path / "folder", tmp_path / "1.png"), drawn(tmp_path / "idx", tmp_path / "2.png")
    np.testing.assert_array_equal(first, second)


def test_samples_are_those_with_the_smallest_hashes(flowers: Path) -> None:
    findings = Findings(open_source(flowers))
    sampler = sheet.survey(findings, 3)
    hashes = sorted(row.tobytes() for row in findings.sha256[findings.labels == 0])[:3]
    kept = sorted((-key).to_bytes(8) for key, _, _ in sampler.kept["2"])
    assert kept == [each[:8] for each in hashes]


def test_fewer_images_than_columns(flowers: Path, tmp_path: Path) -> None:
    assert drawn(flowers, tmp_path / "sheet.png", 30).shape[1] == sheet.LABEL_WIDTH + 30 * 68 + 4
