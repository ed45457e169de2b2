"""A dask cluster of this machine's processes, as the tests use it: `python -m tests.cluster [WORKERS]`.

Prints the scheduler's address, and goes on until its standard input is closed.
"""

from __future__ import annotations

import sys

from distributed import Client, LocalCluster


def main(workers: int) -> None:
    """Start, say where, wait."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as machines,
        Client(machines) as client,
    ):
        client.wait_for_workers(workers)
        print(machines.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
