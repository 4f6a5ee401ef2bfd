"""All performance benchmarks, one after another: `make bench`. Each prints ratios measured in one run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PARTS = ("views", "knn", "propagation", "davis_scoring", "dino_step", "shards", "memory", "tables")


def main() -> int:
    failed = 0
    for part in PARTS:
        print(f"== {part}", flush=True)
        failed |= subprocess.run([sys.executable, str(Path(__file__).with_name(f"{part}.py"))]).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
