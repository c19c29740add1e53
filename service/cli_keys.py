"""`llm-auction keys`: API keys, shown once and kept as hashes."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.api.auth import KeysFileError, Scope, new_key, read_keys

app = typer.Typer(help="Make and list API keys.", no_args_is_help=True)

KeysFile = Annotated[
    Path,
    typer.Option(
        "--file",
        envvar="LLM_AUCTION_AUTH__KEYS_FILE",
        help="The keys file that the server reads at its start.",
    ),
]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Who will use it, e.g. `chat-frontend`.")],
    file: KeysFile,
    scope: Annotated[list[Scope], typer.Option(help="May be given more than once.")],
) -> None:
    """Make a key, print its secret once, and append its hash to the keys file.

    llm-auction keys new chat-frontend --scope respond --file keys.txt
    """
    if not name.isprintable() or len(name.split()) != 1 or name.startswith("#"):
        raise typer.BadParameter("a name is one word, without # at its start", param_hint="NAME")
    secret, key = new_key(name, frozenset(scope))
    if not file.exists():
        file.touch(mode=0o600)
    with file.open("a+b") as keys:
        end = keys.seek(0, os.SEEK_END)
        keys.seek(max(0, end - 1))
        if keys.read(1) not in (b"", b"\n"):  # an editor may leave out the last line's end
            keys.write(b"\n")
        keys.write(f"{key.as_line()}\n".encode())
    Console(stderr=True).print(
        f"Added {name} to {file}. The secret below is not kept; restart the server to use it."
    )
    typer.echo(secret)


@app.command("list")
def list_keys(file: KeysFile) -> None:
    """Show the names and scopes in a keys file."""
    try:
        keys = read_keys(file)
    except KeysFileError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--file") from wrong
    table = Table("name", "scopes", "sha256")
    for key in keys:
        table.add_row(key.name, ", ".join(sorted(key.scopes)), key.digest[:12] + "…")
    Console().print(table)
