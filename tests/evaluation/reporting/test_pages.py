"""The document, and its two written forms: order, escaping, balance, and the same numbers in both."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from metaopt.evaluation.reporting.cells import Table
from metaopt.evaluation.reporting.markdown import markdown_page
from metaopt.evaluation.reporting.page import Picture, html_page
from metaopt.evaluation.reporting.sections import Document, Section, document
from metaopt.evaluation.reporting.verdict import Verdict
from metaopt.evaluation.tables.results import make_table
from tests.evaluation import made_results as made

SVG = b"""<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/svg11.dtd">
<svg width="331.2pt" height="100pt" viewBox="0 0 331.2 100" xmlns="http://www.w3.org/2000/svg">
 <metadata>made by</metadata><!-- <script>alert(1)</script> -->
 <path d="M 0 0 L 1 1" style="stroke: #0072b2"/>
</svg>"""
HOSTILE = "<script>alert('x')</script> & \"quoted\" | `a` *b* _c_ $d$ ![e](f)"
FULL = (
    "Headline",
    "Tasks",
    "Contrasts",
    "Profiles",
    "What tuning buys",
    "Failures",
    "Cost",
    "Curves",
    "Notes",
    "How to read this",
    "Provenance",
)


class Checker(HTMLParser):
    """Notes elements that are not closed where they should be, and everything that refers to something else."""

    VOID = ("meta", "link", "img", "wbr", "br")

    def __init__(self):
        super().__init__()
        self.stack, self.wrong, self.names, self.references = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "action", "data", "srcset")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append(tag)


def checked(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker


def headings(results, timings=made.TIMINGS, figures=("score", "score_profile", "tasks", "tunability", "curves-autoencoder", "axis-score")):
    return [section.heading for section in document(results, timings, figures).sections]


def page_of(results):
    told = document(results, made.TIMINGS, ["score", "tasks"])
    pictures = {name: Picture(f"caption of {name}", SVG) for name in ("score", "tasks")}
    return html_page(told, pictures, {"celo2-base": "#0072B2"}), markdown_page(told, {name: one.caption for name, one in pictures.items()})


def test_sections_stand_in_their_order():
    assert headings(made.small()) == ["Headline", "Inside and outside the training support", *FULL[1:]]
    assert headings(made.ordered())[1:3] == ["Along width", "Planning horizon"]


@pytest.mark.parametrize(
    ("table", "heading"),
    [
        ("contrasts", "Contrasts"),
        ("tunability", "What tuning buys"),
        ("failures", "Failures"),
        ("tasks", "Tasks"),
        ("gaps", "Inside and outside"),
    ],
)
def test_a_section_without_data_is_absent(table, heading):
    assert not any(one.startswith(heading) for one in headings(replace(made.small(), **{table: make_table(table, [])})))


def test_what_was_not_drawn_timed_or_noted_has_no_section():
    found = headings(replace(made.small(), notes=[]), timings={"seconds": 1.0}, figures=())
    assert not {"Profiles", "Curves", "Cost", "Notes"} & set(found)
    assert "Headline" in found


def test_the_cost_says_how_it_was_measured():
    (cost,) = [section for section in document(made.small(), made.TIMINGS, ()).sections if section.heading == "Cost"]
    assert "71 s on 2 workers" in cost.items[0]
    assert "0.50, 0.40, 0.30" in cost.items[1]
    (alone,) = [one for one in document(made.small(), {**made.TIMINGS, "workers": 0}, ()).sections if one.heading == "Cost"]
    assert "71 s in one process" in alone.items[0]


def test_an_axis_explains_its_words():
    how = {section.heading: section for section in document(made.ordered(), {}, ()).sections}["How to read this"]
    assert "Retention" in how.items[-1]
    assert "Planning horizon" in how.items[-2]
    assert not any("Retention" in item for section in document(made.small(), {}, ()).sections for item in section.items)


def test_provenance_is_told_in_full_and_without_what_is_not_there():
    pairs = dict({section.heading: section for section in document(made.ordered(), {}, ()).sections}["Provenance"].pairs)
    assert pairs["suite"] == "axis-width"
    assert pairs["axis"] == "name width, home x1"
    assert pairs["learners / celo2-base"] == "hash ffffffffffffffff"
    assert pairs["baselines / sgd"] == "rule sgd, schedule cosine, trials lr=0.01; lr=0.03"
    assert "axis" not in dict({section.heading: section for section in document(made.small(), {}, ()).sections}["Provenance"].pairs)


@pytest.mark.parametrize("results", [made.small, made.ordered, made.unordered])
def test_html_is_balanced_and_refers_to_nothing_outside(results):
    found = checked(page_of(results())[0])
    assert found.stack == found.wrong == []
    assert "script" not in found.names
    assert all(one.startswith(("data:", "#")) for one in found.references)


def test_no_name_becomes_markup():
    section = Section(HOSTILE, ("a",), [Table((HOSTILE, "b"), [(HOSTILE, HOSTILE)], caption=HOSTILE)], [HOSTILE], [(HOSTILE, HOSTILE)])
    told = Document(HOSTILE, [Verdict(HOSTILE, HOSTILE, (HOSTILE,))], [HOSTILE], [section, replace(section, folded=True)])
    text = html_page(told, {"a": Picture(HOSTILE, SVG)}, {HOSTILE: 'red" onload="alert(1)'})
    found = checked(text)
    assert found.stack == found.wrong == []
    assert not {"script", "b", "i"} & set(found.names)
    assert "<script" not in text
    assert 'onload="' not in text
    lines = markdown_page(told, {"a": HOSTILE}).splitlines()
    assert not any(
        re.search(r"(?<!\\)[<`*|]", line.strip("|*> #-![").replace("** ", "")) for line in lines if "script" in line and "|" not in line
    )
    rows = [re.sub(r"\\.", "", line) for line in lines if line.startswith("|")]
    assert {row.count("|") for row in rows} == {3}


def test_both_forms_have_the_same_numbers():
    results = made.plain()
    html, markdown = page_of(results)
    plain = re.sub(r"<wbr>|<[^>]*>", "", html)
    for text in (plain, markdown.replace("\\", "")):
        assert "0.81 [0.74, 0.88]" in text
        assert "celo2-base reaches the final loss of the best tuned baseline on none of 8 tasks" in text.replace("&lt;", "<")
        assert "Under-covered: 1 meta-seed and 8 tasks" in text


def test_tables_of_markdown_are_rectangles():
    for block in page_of(made.ordered())[1].split("\n\n"):
        widths = {re.sub(r"\\.", "", line).count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_a_figure_is_carried_whole_and_says_what_it_shows():
    text = page_of(made.small())[0]
    (first, *_) = re.findall(r"<img [^>]*>", text)
    assert 'alt="caption of score" width="331" height="100"' in first
    assert "%3Csvg" in first
    assert "%230072b2" in first, "a hash would end the address"
    for gone in ("DOCTYPE", "metadata", "alert", "svg11.dtd"):
        assert gone not in first


def test_learners_have_their_colour_of_the_figures():
    text = page_of(made.small())[0]
    assert '<div class="verdict" style="--mark:#0072B2"><strong>celo2-base reaches' in text
    assert text.count("--mark:currentColor") == 2


def test_long_names_may_break_only_where_they_are_joined():
    text = page_of(made.small())[0]
    assert "a_<wbr>learner_<wbr>with_<wbr>a_<wbr>very_<wbr>long_<wbr>name_" in text
    assert "&lt;script&gt;" in text
    assert "sgd_<wbr>momentum K=15" in text


def test_folded_tables_are_there_but_closed():
    text = page_of(made.ordered())[0]
    assert text.count("<details>") == text.count("<summary>") >= 8
    assert "<details open" not in text
