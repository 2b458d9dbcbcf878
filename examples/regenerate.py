"""Writes examples/generated/: the PyTorch file of every spec in specs/. A test compares them with a fresh run.

python examples/regenerate.py
"""

from pathlib import Path

import archspec

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write one file a spec, and remove those whose spec is gone."""
    target = ROOT / "examples" / "generated"
    target.mkdir(exist_ok=True)
    specs = sorted((ROOT / "specs").glob("*.yaml"))
    for old in set(target.glob("*.py")) - {target / f"{spec.stem}.py" for spec in specs}:
        old.unlink()
    for spec in specs:
        text = archspec.generate(archspec.load(spec))
        (target / f"{spec.stem}.py").write_text(text, encoding="utf-8")
        print(f"{spec.stem}.py: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
