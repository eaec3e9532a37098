"""What a study says while it goes: stages, and lines under them."""

from __future__ import annotations

from rich.console import Console


def heading(console: Console, stage: str, text: str) -> None:
    console.print(f"\n[bold]{stage}  {text}[/]", highlight=False)


def say(console: Console, text: str) -> None:
    console.print(f"     {text}", highlight=False, markup=False, soft_wrap=True)
