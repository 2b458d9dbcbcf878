"""Writes docs/language.md, and what is made of specs: examples/generated/ and the picture of the README.

The PyTorch file of every spec in specs/; in standalone/ those of some in torch alone.

python examples/regenerate.py

A test compares them with a fresh run.
"""

from pathlib import Path
from typing import Literal

import archspec
from archspec.language.topics import language

ROOT = Path(__file__).resolve().parent.parent
STANDALONE = ("bert_base", "deepseek_v3", "gpt2", "llama3_8b", "mamba_130m", "mixtral_8x7b")


def main() -> None:
    """Write one file a spec, and remove those whose spec is gone."""
    (ROOT / "docs" / "language.md").write_text(language(), encoding="utf-8")
    target = ROOT / "examples" / "generated"
    specs = sorted((ROOT / "specs").glob("*.yaml"))
    write(target, specs, False)
    archspec.render(archspec.load(ROOT / "examples" / "hybrid.yaml"), ROOT / "examples" / "hybrid.svg")
    write(target / "standalone", [spec for spec in specs if spec.stem in STANDALONE], "plain")


def write(target: Path, specs: list[Path], standalone: Literal[False, "plain"]) -> None:
    """Fill a folder with the files of some specs, and leave no others there."""
    target.mkdir(exist_ok=True)
    for old in set(target.glob("*.py")) - {target / f"{spec.stem}.py" for spec in specs}:
        old.unlink()
    for spec in specs:
        text = archspec.generate(archspec.load(spec), standalone=standalone)
        (target / f"{spec.stem}.py").write_text(text, encoding="utf-8")
        print(f"{(target / spec.stem).relative_to(ROOT)}.py: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
