"""What people see of descriptions and judgements on the command line."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from saematch.run.described import Described, described

if TYPE_CHECKING:
    from saematch.run import Run

EXAMPLES = 3


def described_json(run: "Run") -> dict[str, Any]:
    """What `saematch describe --json` prints."""
    return {
        "saes": [
            {"sae": key, "source": source, **found.about, "described": found.count}
            for (key, source), found in described(run).items()
        ]
    }


def described_summary(run: "Run") -> None:
    """A line an SAE and source, and examples."""
    console = Console()
    table = Table("SAE", "source", "described", "features", "tokens read", "example")
    for (key, source), found in described(run).items():
        table.add_row(
            escape(key),
            escape(source),
            str(found.count),
            str(run.manifest["saes"][key]["d_sae"]),
            f"{found.about.get('tokens', 0):,}",
            escape(_example(found)),
        )
    console.print(table)
    console.print(f"Tables: {escape(str(run.path))}/features, contexts, descriptions")


def _example(found: Described) -> str:
    feature, text = found.example
    return f"{feature}: {text}" if text else ""
