"""Tables, and progress on a terminal and elsewhere."""

import io
import json

import pytest

from metaopt.cli import output
from metaopt.cli.output import ProgressDisplay, json_text, print_rows


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(output, "time", clock)
    return clock


def test_a_line_every_ten_seconds_off_a_terminal(clock: Clock) -> None:
    stream = io.StringIO()
    with ProgressDisplay(stream=stream) as progress:
        for done in range(1, 13):
            clock.now += 4.0
            progress("outer step", done, 12, {"meta-loss": 1 / 3, "inner steps/s": 2411.4})
    assert stream.getvalue().splitlines() == [
        "outer step 3/12, meta-loss 0.3333, inner steps/s 2411, 36 s left",
        "outer step 6/12, meta-loss 0.3333, inner steps/s 2411, 24 s left",
        "outer step 9/12, meta-loss 0.3333, inner steps/s 2411, 12 s left",
        "outer step 12/12, meta-loss 0.3333, inner steps/s 2411, 0 s left",
    ]


def test_a_resumed_run_is_timed_from_where_it_began(clock: Clock) -> None:
    stream = io.StringIO()
    progress = ProgressDisplay(stream=stream)
    clock.now = 10.0
    progress("outer step", 101, 111)
    assert stream.getvalue() == "outer step 101/111, 100 s left\n"


def test_phases_are_timed_apart(clock: Clock) -> None:
    stream = io.StringIO()
    progress = ProgressDisplay(stream=stream)
    clock.now = 100.0
    progress("learners", 2, 2)
    clock.now = 120.0
    progress("baselines", 1, 3)
    clock.now = 140.0
    progress("baselines", 2, 3)
    assert stream.getvalue().splitlines() == ["learners 2/2, 0 s left", "baselines 1/3, 40 s left", "baselines 2/3, 20 s left"]


def test_an_announced_phase_is_timed_by_its_work(clock: Clock) -> None:
    """Three pieces of 60 000, 30 000 and 10 000 steps at 1000 steps a second; the first counts as the others do."""
    stream = io.StringIO()
    progress = ProgressDisplay(stream=stream)
    clock.now = 500.0
    progress("learners", 0, 100_000)
    for done, now in ((60_000, 560.0), (90_000, 590.0), (100_000, 600.0)):
        clock.now = now
        progress("learners", done, 100_000)
    assert stream.getvalue().splitlines() == [
        "learners 60k/100k, 40 s left",
        "learners 90k/100k, 10 s left",
        "learners 100k/100k, 0 s left",
    ]


def test_results_that_arrive_together_do_not_spoil_the_estimate(clock: Clock) -> None:
    stream = io.StringIO()
    progress = ProgressDisplay(stream=stream)
    progress("learners", 0, 4)
    for done, now in ((1, 3600.0), (2, 3600.1), (3, 7200.0)):
        clock.now = now
        progress("learners", done, 4)
    clock.now = 9000.0
    progress("learners", 0, 2)  # of the next suite
    clock.now = 9012.0
    progress("learners", 1, 2)
    assert stream.getvalue().splitlines() == ["learners 1/4, 3.0 h left", "learners 3/4, 40 min left", "learners 1/2, 12 s left"]


@pytest.mark.parametrize(
    ("units", "text"),
    [(0, "0"), (9999, "9999"), (10_000, "10k"), (123_456, "123k"), (999_950, "1M"), (3_400_000, "3.4M"), (5 * 10**9, "5G")],
)
def test_large_counts_are_short(units: int, text: str) -> None:
    assert output._amount(units) == text


def test_quiet_is_silent() -> None:
    stream = io.StringIO()
    ProgressDisplay(quiet=True, stream=stream)("outer step", 1, 1)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    with ProgressDisplay(stream=stream) as progress:
        progress("outer step", 1, 2, {"meta-loss": 0.5})
        progress("outer step", 2, 2, {"meta-loss": 0.25})
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith("outer step: 100%")
    assert "2/2" in last
    assert "meta-loss=0.25" in last
    assert "\x1b[3" not in stream.getvalue()


def test_a_bar_of_steps_is_readable() -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    with ProgressDisplay(stream=stream) as progress:
        progress("learners", 0, 120_000)
        progress("learners", 60_000, 120_000)
    assert "60.0k/120k" in stream.getvalue().split("\r")[-1]


def test_tables_align_and_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "lr": 0.0001234567, "tags": ["x", "y"]}, {"name": "long", "lr": 3, "tags": []}]
    print_rows(rows, as_json=False)
    assert capsys.readouterr().out == "name  lr         tags\na     0.0001235  x, y\nlong  3\n"
    print_rows(rows, as_json=True)
    assert json.loads(capsys.readouterr().out) == rows
    print_rows(rows, as_json=False, quiet=True)
    assert capsys.readouterr().out == "a\nlong\n"
    print_rows([], as_json=False)
    assert capsys.readouterr().out == "none\n"


def test_json_spells_what_is_not_finite_as_null() -> None:
    assert json.loads(json_text({"a": [float("nan"), 1.5], "b": {"c": float("-inf")}})) == {"a": [None, 1.5], "b": {"c": None}}


def test_a_slow_first_unit_does_not_spoil_the_estimate(clock: Clock) -> None:
    stream = io.StringIO()
    progress = ProgressDisplay(stream=stream)
    clock.now = 20.0
    progress("outer step", 1, 101)
    for done in range(2, 12):
        clock.now += 1.0
        progress("outer step", done, 101)
    assert stream.getvalue().splitlines() == ["outer step 1/101, 33 min left", "outer step 11/101, 90 s left"]
