"""How the commands reach the running service, and what they say where that fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, NoReturn

import httpx
import typer
from rich.console import Console
from rich.text import Text

HERE: Final = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(envvar="LLM_AUCTION_URL", help="Where the service listens.")]
Key = Annotated[str | None, typer.Option(envvar="LLM_AUCTION_API_KEY", help="API key.")]


@contextmanager
def open_client(url: str, api_key: str | None, timeout_s: float = 60) -> Iterator[httpx.Client]:
    """A client of the service; where it cannot be reached, the command ends with 1."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout_s) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        errors = Console(stderr=True, highlight=False)
        errors.print(f"[bold red]No answer from {url}[/]: {error}. Is the service running?")
        raise typer.Exit(1) from error


def checked(response: httpx.Response) -> httpx.Response:
    """`response` where it is a success; else the problem is shown and the command ends with 1."""
    if not response.is_success:
        try:
            problem = response.json()
        except ValueError:
            problem = {"title": f"HTTP {response.status_code}"}
        fail(problem)
    return response


def fail(problem: dict[str, Any]) -> NoReturn:
    """Show `problem` (RFC 9457) and end the command with 1."""
    errors = Console(stderr=True, highlight=False)
    errors.print(Text(f"{problem.get('title')}. {problem.get('detail') or ''}", "bold red"))
    for error in problem.get("errors") or ():
        errors.print(Text(f"  {error['loc']}: {error['msg']}"))
    raise typer.Exit(1)
