"""One page, that loads nothing, says what is true, and comes out the same every time."""

import re
from html.parser import HTMLParser

import pytest

from recursight.evaluation.report import render
from tests.evaluation.field import evidence

FIELD = {"good": [(0.95, 0.93)], "near": [(0.94, 0.94)], "plain": [(0.80, 0.78)]}
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects tags, and checks that what opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def words(text: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", text, flags=re.S).split())


def test_the_page_needs_no_network_and_repeats() -> None:
    text = render(evidence(FIELD))
    assert text == render(evidence(FIELD))
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(|fetch\(|XMLHttp", text)
    page = Page(text)
    assert not page.all("link")
    for attributes in (attributes for _, attributes in page.tags):
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_every_chart_and_picture_has_words_and_every_table_its_headings() -> None:
    page = Page(render(evidence(FIELD)))
    outer = [attributes for attributes in page.all("svg") if "role" in attributes]
    # Three intervals, two learning curves, two prices, three matrices, two gradients (one candidate has no states).
    assert len(outer) == 3 + 2 + 2 + 3 + 2
    assert all(attributes["aria-label"] for attributes in outer)
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["scope"] in ("row", "col") for attributes in page.all("th"))
    assert [attributes["lang"] for attributes in page.all("html")] == ["en"]


def test_the_headline_tells_the_winner_and_what_is_chance() -> None:
    text = words(render(evidence(FIELD)))
    assert "good wins with 93.00 % test accuracy" in text
    assert "Of the other 2 candidates, 1 is tied with it" in text
    assert "1 is worse by more than chance explains" in text
    assert "2,800 2,000 train, 400 validation, 400 test" in text


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"only": [(0.9, 0.9)]}, "only wins with 90.00"),
        ({"one": [(0.9, 0.9)], "two": [(0.9, 0.9)]}, "The other candidate is tied with it"),
        ({"one": [(0.9, 0.9)], "two": [(0.89, 0.9)], "three": [(0.88, 0.9)]}, "All 2 other candidates are tied"),
        ({"one": [(0.9, 0.9)], "two": [(0.6, 0.6)]}, "differs from every other candidate by more than chance"),
        ({"one": [(0.9, 0.7)], "two": [(0.6, 0.9)]}, "it is beaten on test by two, by more than chance explains"),
        ({"one": [(0.9, 0.9)] * 3, "two": [(0.9, 0.9)] * 3}, "3 times with different seeds; scores are means"),
    ],
)
def test_sentences_fit_the_outcome(field: dict[str, list[tuple[float, float]]], expected: str) -> None:
    assert expected in words(render(evidence(field)))


def test_names_cannot_break_the_page() -> None:
    names = ["<script>alert(1)</script>", 'a"b', "c&d", "山", "e' onload='"]
    text = render(evidence(FIELD, names=names))
    Page(text)
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text


def test_two_classes_and_a_hundred() -> None:
    Page(render(evidence(FIELD, names=["a", "b"])))
    field = {f"candidate-{letter}": [(0.7, 0.7)] for letter in "abcdefghijkl"}  # more than there are colours
    text = render(evidence(field, names=[f"class {index}" for index in range(100)]))
    Page(text)
    assert len(text) < 3_000_000
