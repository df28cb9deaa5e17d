"""How the suite is spread over processes by the test command."""

import os
import re
import subprocess
import sys

from tests.conftest import PROJECT


def test_a_files_tests_stay_in_one_process_and_so_do_all_whole_jobs():
    cheap = "test_pages_of_data_and_jobs_print_commands_and_these_are_counted"
    tests = ["das/test_fields.py", "das/test_oks.py", "jobs/test_gpu_jobs.py", f"test_documented_commands.py::{cheap}"]
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "DAS_REQUIRE": ""}
    said = subprocess.run(
        [*command, *(f"tests/{test}" for test in tests)], cwd=PROJECT, env=environment, capture_output=True, text=True
    ).stdout
    processes = [set(re.findall(rf"^\[(gw\d)\].* tests/{test}", said, re.MULTILINE)) for test in tests]
    assert [len(found) for found in processes] == [1, 1, 1, 1], said
    assert processes[2] == processes[3]
