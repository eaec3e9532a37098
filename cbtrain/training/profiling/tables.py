"""A profile as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from cbtrain.training.profiling.components import Breakdown
from cbtrain.training.profiling.memory import Peak
from cbtrain.training.profiling.profiler import Profile

WHAT = {
    "linears": "frozen weights",
    "LoRA": "A, B, dropout",
    "rest of the decoder": "RoPE, SwiGLU, sums",
    "loss": "head, cross-entropy",
    "optimizer": "with clipping",
    "other": "autograd, Python",
}
MEMORY_ROWS = 8


def show(profile: Profile, console: Console) -> None:
    """Print time by component, memory at its peak, and what the profiler itself costs."""
    console.print(time_table(profile.breakdown, console.width))
    speed, profiled = profile.without.tokens_per_second, profile.profiled.tokens_per_second
    console.print(
        f"{speed:,.0f} tokens/s; under the profiler {profiled:,.0f}, where short calls take longer", highlight=False
    )
    peak = profile.peak
    console.print(
        f"\nMemory at its peak: {_size(peak.bytes)} beyond what was held before, allocated in", highlight=False
    )
    console.print(memory_table(peak))


def time_table(breakdown: Breakdown, width: int) -> Table:
    """Return a table of milliseconds per step by component and pass, on ``width`` columns; the last row sums up."""
    whose = "GPU" if breakdown.on_gpu else "training thread"
    table = Table(
        title=f"Milliseconds a step, mean of {breakdown.steps}, by the clock of the {whose}",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        header_style="dim",
        show_footer=True,
    )
    again = any(breakdown.of(name, "recomputed") for name in breakdown.components)
    table.add_column("component", footer="all", no_wrap=True)
    described = width >= (92 if again else 80)
    if described:
        table.add_column("", style="dim", no_wrap=True)
    columns = ["forward", *(["recomputed"] if again else []), "backward"]
    for name in columns:
        total = sum(breakdown.of(component, name) for component in breakdown.components)
        table.add_column(name, footer=_ms(total, breakdown), justify="right")
    whole = sum(breakdown.of(component) for component in breakdown.components)
    table.add_column("total", footer=_ms(whole, breakdown), justify="right", style="bold")
    table.add_column("share", footer=f"{whole / max(breakdown.seconds, 1e-12):.1%}", justify="right")
    for component in breakdown.components:
        passes = [_ms(breakdown.of(component, name), breakdown) for name in columns]
        share = breakdown.of(component) / max(breakdown.seconds, 1e-12)
        names = [component, WHAT.get(component, "")] if described else [component]
        table.add_row(*names, *passes, _ms(breakdown.of(component), breakdown), f"{share:.1%}")
    return table


def memory_table(peak: Peak) -> Table:
    """Return a table of the components' bytes at the peak, the largest first."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = list(peak.by_component.items())
    rest = sum(size for _, size in rows[MEMORY_ROWS:])
    for name, size in [*rows[:MEMORY_ROWS], *([("the rest", rest)] if rest else [])]:
        table.add_row(name, _size(size))
    return table


def _ms(seconds: float, breakdown: Breakdown) -> str:
    value = 1e3 * seconds / max(breakdown.steps, 1)
    return f"{value:,.1f}" if value >= 0.05 else "–" if value == 0 else f"{value:.2g}"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
