from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.page import (
    Said,
    bar_plot,
    interval_plot,
    link,
    marked_words,
    page,
    paragraph,
    picture,
    section,
    share_plot,
    square_plot,
    stream_plot,
    table,
    verdict,
)

HOSTILE = """</title><script>alert("x")</script><img src=x onerror='y'>&amp;"""
SHARES = st.floats(0, 1)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@given(st.text(max_size=30))
def test_text_is_shown_as_it_is_and_never_becomes_markup(text):
    text = f"{HOSTILE}{text}"
    whole = page(
        text,
        verdict(text, "good"),
        section(text, paragraph(text), table((text,), [(text,)])),
        link(text, text),
        interval_plot([(text, -0.1, 0.0, 0.1)], 0.5),
        bar_plot([(text, 0.5)], 0.15),
        square_plot({text: [(0, 0), (1, 1)]}, text, text),
        marked_words([(text, 0.5)]),
        table((text,), [(Said(text, "bad"),)]),
    )
    found = read(whole)
    assert not {"script", "img"} & set(found.tags)
    # Titles, verdict, two headings, a paragraph, four cells, a link, three plots, a word.
    assert found.text.count(HOSTILE) == 16


def test_a_page_needs_no_other_file_and_no_script():
    whole = page("Gate", verdict("keep", "bad"), bar_plot([("a", 0.2)], 0.1))
    assert "<script" not in whole
    assert not re.search(r"(?:https?:)?//|@import|url\(", whole)


def test_numbers_are_set_to_the_right_and_rounded():
    cells = table(("name", "rows", "f1", "best"), [("a", 12345, 0.123456, True)])
    assert '<td class="n">12,345</td>' in cells
    assert '<td class="n">0.123</td>' in cells
    assert "<td>True</td>" in cells


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=6))
def test_intervals_are_drawn_in_order_and_inside_the_plot(rows):
    svg = ElementTree.fromstring(
        interval_plot([(str(i), *sorted(values)) for i, values in enumerate(rows)], 0.5)
    )
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    lines = svg.findall("line")[1:]
    circles = svg.findall("circle")
    assert len(lines) == len(circles) == len(rows)
    for line, circle in zip(lines, circles, strict=True):
        left, middle, right = (
            float(line.attrib["x1"]),
            float(circle.attrib["cx"]),
            float(line.attrib["x2"]),
        )
        assert 0 <= left <= middle <= right <= width
        assert float(circle.attrib["cy"]) <= height


def test_zero_lies_in_the_middle_of_an_interval_plot():
    svg = ElementTree.fromstring(interval_plot([("a", -0.5, 0.0, 0.5)], 0.5))
    zero, line = svg.findall("line")
    left, right = float(line.attrib["x1"]), float(line.attrib["x2"])
    assert float(zero.attrib["x1"]) == pytest.approx((left + right) / 2, abs=0.1)


@given(st.lists(SHARES, max_size=8), SHARES)
def test_bars_at_or_over_the_threshold_stand_out(values, threshold):
    rows = [(str(place), value) for place, value in enumerate(values)]
    svg = ElementTree.fromstring(bar_plot(rows, threshold))
    bars = svg.findall("rect")
    shades = [bar.attrib["class"] for bar in bars]
    assert shades == ["over" if value >= threshold else "bar" for value in values]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert all(
        a <= b + 0.1
        for (a, va) in zip(widths, values, strict=True)
        for (b, vb) in zip(widths, values, strict=True)
        if va <= vb
    )


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=6))
def test_curves_stay_inside_of_their_square(points):
    svg = ElementTree.fromstring(square_plot({"a": points, "b": points}, "x", "y"))
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    first, second = svg.findall("polyline")
    assert first.attrib["stroke"] != second.attrib["stroke"]
    for point in first.attrib["points"].split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= width and 0 <= y <= height


def test_words_are_shaded_by_weight_and_direction():
    html = marked_words([("good", 0.5), ("not", -0.25), ("the", 0.0)])
    assert "rgba(87,87,255,0.60)" in html and "rgba(179,38,30,0.30)" in html
    assert ",0.00)" in html
    assert read(html).text == "good not the"
    assert marked_words([]) == "<p></p>"


def test_a_picture_is_part_of_the_page_and_has_a_tile_for_each_weight():
    assert picture("aGk=").startswith('<img alt="" src="data:image/png;base64,aGk="')
    assert picture('"onerror=').count('"') == picture("aGk=").count('"')
    assert picture("aGk=", [[0.1, -0.2], [0.0, 0.3]]).count("<rect") == 4


def test_a_mood_colours_a_cell():
    assert '<td class="good">passed</td>' in table(("",), [(Said("passed", "good"),)])


def test_a_stream_shows_its_threshold_and_its_alarms():
    values = [0.0, 5.0, 21.0, 0.0, 3.0]
    drawn = ElementTree.fromstring(stream_plot(values, 20, [2]))
    lines = [each for each in drawn.iter() if each.attrib.get("class") == "alarm"]
    points = next(each for each in drawn.iter() if "points" in each.attrib).attrib["points"]
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(places) == len(values)
    assert [float(line.attrib["x1"]) for line in lines] == [places[2][0]]
    assert min(places, key=lambda place: place[1]) == places[2]
    dashed = next(each for each in drawn.iter() if "stroke-dasharray" in each.attrib)
    assert places[2][1] < float(dashed.attrib["y1"]) < places[1][1]


def test_shares_of_two_sides_stand_side_by_side():
    drawn = ElementTree.fromstring(
        share_plot([("a <b>", 0.5, 0.25), ("c", 0.5, 0.75)], ("then", "now"))
    )
    widths = [
        float(each.attrib["width"]) for each in drawn.iter() if each.attrib.get("height") == "10"
    ]
    assert widths == pytest.approx([share * widths[0] for share in (1, 0.5, 1, 1.5)], abs=0.1)
    assert "a <b>" in [each.text for each in drawn.iter()]
