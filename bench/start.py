"""How long a start takes, against what importing the core dependencies takes.

    python -m bench.start DATABASE_URL [--rounds 15]

Prints the median of each: an interpreter that does nothing, one that imports the core dependencies, and `taskd serve`
on a running, migrated database, from its start to its first answer of 200 at `/readyz`; then where the time of the last
one goes. Warm page cache and compiled modules; the three take turns.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import statistics
import subprocess
import sys
import time

CORE = "import asyncpg, websockets, grpc, google.protobuf, grpc_health.v1.health, grpc_reflection.v1alpha.reflection"

# As installed: modules are compiled once, not at each start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def interpreter(code: str) -> float:
    """Return the seconds that a Python program takes."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)
    return time.perf_counter() - begun


def serve(url: str, port: int) -> float:
    """Return the seconds until `taskd serve` is ready."""
    command = [sys.executable, "-m", "taskd", "serve", "--database-url", url, "--auth", "none"]
    command += ["--grpc", "off", "--http", f"127.0.0.1:{port}"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        while not ready(port):
            time.sleep(0.002)
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


def ready(port: int) -> bool:
    """Return whether the server answers that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def import_times(code: str) -> list[tuple[float, str]]:
    """Return what importing takes by module, its own imports included, in milliseconds, the longest first."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stderr
    lines = re.findall(r"import time: +\d+ \| +(\d+) \| ( *)(\S+)", told)
    return sorted(((int(micros) / 1000, name) for micros, _, name in lines), reverse=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--port", type=int, default=8497)
    asked = parser.parse_args()
    serve(asked.url, asked.port)
    rounds = [(interpreter("pass"), interpreter(CORE), serve(asked.url, asked.port)) for _ in range(asked.rounds)]
    bare, core, served = (statistics.median(times) * 1000 for times in zip(*rounds, strict=True))
    print(f"interpreter {bare:.0f} ms, with core dependencies {core:.0f} ms, serve ready {served:.0f} ms")
    print(f"serve / core = {served / core:.2f}")
    for millis, name in import_times("import taskd.cli.serve, taskd.web.application, taskd.worker.samples")[:25]:
        print(f"{millis:8.1f} ms  {name}")


if __name__ == "__main__":
    main()
