"""Memory as Linux reports it, with and without a container's limit."""

import pytest

from adjudge.system.memory import available_gib, memory_gib

GIB = 2**30


def system(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {
    "proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n"
    "MemAvailable:    8388608 kB\nHugePages_Total:       0\n"
}
TWO, ONE = "sys/fs/cgroup/memory.", "sys/fs/cgroup/memory/memory."


@pytest.mark.parametrize(
    ("limits", "total", "free"),
    [
        ({}, 16, 8),
        ({f"{TWO}max": "max\n", f"{TWO}current": "5"}, 16, 8),
        ({f"{TWO}max": f"{4 * GIB}\n", f"{TWO}current": f"{GIB}\n"}, 4, 3),
        ({f"{TWO}max": f"{4 * GIB}\n", f"{TWO}current": f"{5 * GIB}\n"}, 4, 0),
        ({f"{TWO}max": f"{64 * GIB}\n", f"{TWO}current": f"{GIB}\n"}, 16, 8),
        ({f"{ONE}limit_in_bytes": f"{2 * GIB}\n", f"{ONE}usage_in_bytes": f"{GIB}\n"}, 2, 1),
        ({f"{ONE}limit_in_bytes": "9223372036854771712\n", f"{ONE}usage_in_bytes": "1"}, 16, 8),
    ],
)
def test_a_lower_container_limit_counts(limits, total, free, tmp_path):
    system(tmp_path, MEMINFO | limits)
    assert (memory_gib(tmp_path), available_gib(tmp_path)) == (total, free)


def test_without_linux_files_the_installed_memory_counts_as_available(tmp_path):
    assert memory_gib(tmp_path) == available_gib(tmp_path)
    assert memory_gib(tmp_path) > 0.1
