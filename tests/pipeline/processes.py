"""Forked processes that tests start, kill and wait for."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable

# Whatever a test has patched is there in the child as well.
FORK = multiprocessing.get_context("fork")


def in_a_process(do: Callable[[], object]) -> multiprocessing.Process:
    """Starts a fork of this process that calls ``do`` and ends with status 3 on a ValueError."""

    def run() -> None:
        try:
            do()
        except ValueError as error:
            print(error, file=sys.stderr)
            os._exit(3)
        os._exit(0)

    process = FORK.Process(target=run)
    process.start()
    return process


def status(process: multiprocessing.Process) -> int | None:
    process.join(120)
    return process.exitcode
