"""The final table, for a terminal and for a log."""

import io
from dataclasses import asdict

import pytest

from recursight.evaluation.table import cells, p_value, print_ranking, ranking_text
from tests.evaluation.field import contest

COMPARISON = asdict(contest({"gru": [(0.95, 0.93)], "elman": [(0.80, 0.78)]})[0])


def test_plain_text_is_aligned_and_complete() -> None:
    lines = ranking_text(COMPARISON).splitlines()
    assert [line.split()[0] for line in lines] == ["candidate", "gru", "elman"]
    assert "validation accuracy (95 % interval)" in lines[0]
    assert "93.00 (" in lines[1]
    assert lines[1].endswith("winner")
    assert "worse: -15.00 points, p < 0.001" in lines[2]
    column = lines[0].index("against the winner")
    assert lines[1][column:] == "winner"
    assert lines[2][column:].startswith("worse")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    print_ranking(COMPARISON, terminal)
    print_ranking(COMPARISON, pipe)
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in pipe.getvalue()
    for text in cells(COMPARISON, COMPARISON["ranking"][1]):
        assert text.strip() in pipe.getvalue()
        assert text.strip() in terminal.getvalue()


def test_numbers_in_words() -> None:
    assert [p_value(value) for value in (0.0001, 0.0123, 0.5)] == ["p < 0.001", "p = 0.012", "p = 0.50"]
