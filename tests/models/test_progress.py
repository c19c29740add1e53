"""Progress in a log: how far, how long still, and no line for every step."""

from io import StringIO

from rich.console import Console

from models.progress import Lines, progress_bar


class Clock:
    """Seconds, as the test sets them."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def said(steps: list[tuple[float, int]], total: int) -> list[str]:
    """What is said when at each second so many are done."""
    clock, lines = Clock(), list[str]()
    progress = Lines("training", total, lines.append, clock)
    for seconds, done in steps:
        clock.now = 1_000.0 + seconds
        progress(done)
    return lines


def test_says_at_once_where_the_work_stands() -> None:
    assert said([(0, 0)], 400) == ["training: 0 of 400"]


def test_says_a_line_a_minute_with_the_time_left() -> None:
    steps = [(second * 10, second) for second in range(14)]

    assert said(steps, 400) == [
        "training: 0 of 400",
        "training: 6 of 400, 1:05:40 left",
        "training: 12 of 400, 1:04:40 left",
    ]


def test_work_that_goes_on_is_timed_by_what_this_start_did() -> None:
    assert said([(0, 300), (100, 310)], 400)[-1] == "training: 310 of 400, 0:15:00 left"


def test_the_end_is_said_however_soon_it_comes() -> None:
    assert said([(0, 0), (1, 2)], 2) == ["training: 0 of 2", "training: 2 of 2"]


def test_a_log_gets_lines_and_a_terminal_a_bar() -> None:
    log, screen = StringIO(), StringIO()

    for console in (Console(file=log), Console(file=screen, force_terminal=True, width=80)):
        with progress_bar("[training]", 2, console) as progress:
            progress(2)

    assert log.getvalue() == "[training]: 2 of 2\n"
    assert "[training]" in screen.getvalue()
    assert "━" in screen.getvalue()
    assert "2/2" in screen.getvalue()
