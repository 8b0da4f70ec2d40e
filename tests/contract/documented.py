"""What the pages for who writes an adapter show, installed as they say: a file, and a line."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def shown(page: str, kind: str, with_text: str) -> str:
    """The block of *page* that has *with_text*."""
    blocks = (DOCS / page).read_text().split(f"```{kind}\n")[1:]
    (found,) = [each for block in blocks if with_text in (each := block.partition("```")[0])]
    return found


def install(package: Path, page: str, code_with: str) -> None:
    """Make the directory *package* one of the adapter that *page* shows, and of nothing else."""
    section, line = shown(page, "toml", "[project.entry-points.").splitlines()
    group = section.split('"')[1]
    name, _, target = line.partition(" = ")
    module = target.strip('"').partition(":")[0]
    info = package / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    (package / f"{module}.py").write_text(shown(page, "python", code_with))
