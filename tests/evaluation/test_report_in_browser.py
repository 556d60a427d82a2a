"""The report as a reader sees it: on a phone and on a wide screen, by day and by night, with nothing cut off and nothing fetched."""

from dataclasses import replace

import pytest

from metaopt.evaluation.report import write_report
from tests.evaluation import made_results as made
from tests.evaluation.browser import BINARY, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no chromium, chromium-browser or google-chrome on this machine"),
]
PHONE, WIDE = 390, 1440

# What sticks out of the page to the right without standing in a container that scrolls.
CUT_OFF = """
[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 0.5 && !one.closest('.wide table'))
    .map(one => one.outerHTML.slice(0, 80))
"""
# Text that is wider than the cell, card or line that it stands in.
SPILLED = """
[...document.querySelectorAll('th, td, li, p, h1, h2, h3, dt, dd, strong, figcaption, summary')]
    .filter(one => getComputedStyle(one).display !== 'inline' && one.clientWidth > 0 && one.scrollWidth > one.clientWidth + 1)
    .map(one => one.textContent.slice(0, 80))
"""
IMAGES = """
Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth, () => 0)))
"""
# The scrolled tables keep their first column in view.
FIRST_COLUMN = """
[...document.querySelectorAll('.wide')].map(box => {
    box.scrollLeft = 1e6;
    const first = box.querySelector('tbody th').getBoundingClientRect(), around = box.getBoundingClientRect();
    return [Math.round(first.left - around.left), first.width / around.width];
})
"""
CONTRAST = """
(() => {
    const light = colour => {
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = colour.match(/[\\d.]+/g).map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const body = light(getComputedStyle(document.body).backgroundColor);
    return ['body', 'h2', 'nav a', 'tbody td', '.interval', 'figcaption', 'summary'].map(name => {
        const ink = light(getComputedStyle(document.querySelector(name)).color);
        return (Math.max(ink, body) + 0.05) / (Math.min(ink, body) + 0.05);
    });
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made_of = {"plain": made.small(), "ordered": _fewer_curves(made.ordered()), "unordered": _fewer_curves(made.unordered())}
    return {name: write_report(results, made.TIMINGS, folder / name).path / "report.html" for name, results in made_of.items()}


def _fewer_curves(results):
    return replace(results, curves=dict(list(results.curves.items())[:3]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.mark.parametrize("width", [PHONE, WIDE])
@pytest.mark.parametrize("name", ["plain", "ordered", "unordered"])
def test_nothing_is_missing_cut_off_or_fetched(browser, pages, tmp_path, name, width):
    browser.open(pages[name], width)
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    widths = browser.evaluate(IMAGES)
    assert len(widths) >= 8
    assert min(widths) > 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CUT_OFF) == []
    assert browser.evaluate(SPILLED) == []
    for left, share in browser.evaluate(FIRST_COLUMN):
        assert left <= 1
        assert share < 0.5
    assert browser.named("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed") == []
    addresses = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
    assert {address.split(":")[0] for address in addresses} == {"file", "data"}
    assert sum(address.startswith("file:") for address in addresses) == 1
    browser.screenshot(tmp_path / f"{name}-{width}.png")
    assert (tmp_path / f"{name}-{width}.png").stat().st_size > 50_000


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_by_day_and_by_night(browser, pages, dark):
    browser.open(pages["plain"], PHONE, dark=dark)
    assert min(browser.evaluate(CONTRAST)) > 4.5
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark


def test_links_lead_to_sections(browser, pages):
    browser.open(pages["ordered"], PHONE)
    lost = "[...document.querySelectorAll('nav a')].filter(one => document.querySelectorAll(one.getAttribute('href')).length !== 1).length"
    assert browser.evaluate(lost) == 0
    assert browser.evaluate("document.querySelectorAll('nav a').length") >= 10


@pytest.mark.parametrize("name", ["plain", "ordered"])
def test_paper_holds_everything(browser, pages, name):
    browser.open(pages[name], 760)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert browser.evaluate("document.querySelector('details:not([open]) .wide').getBoundingClientRect().height") > 50, (
            "nothing is folded"
        )
        assert browser.evaluate("document.documentElement.scrollWidth") <= 760
        assert browser.evaluate(CUT_OFF.replace("&& !one.closest('.wide table')", "")) == []
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
