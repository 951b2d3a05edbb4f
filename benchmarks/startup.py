"""How long `saematch --help` and `import saematch` take: median of n runs, whole processes."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15
COMMANDS = {
    "saematch --help": [str(Path(sys.executable).with_name("saematch")), "--help"],
    "import saematch": [sys.executable, "-c", "import saematch"],
    "python -c pass": [sys.executable, "-c", "pass"],
}

for name, command in COMMANDS.items():
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    print(f"{name:18} {statistics.median(times[1:]):.3f} s (least {min(times[1:]):.3f})")
