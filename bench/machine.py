"""On what it was measured."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import redis
from psycopg import Connection


def machine(conn: Connection, client: redis.Redis | None = None) -> dict[str, str]:
    """Cores, memory and versions, by what people call them; that of Redis if it has a part in what is measured."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3:.0f} GiB",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **({"Redis": _redis_server(client)} if client else {}),
        "PostgreSQL": conn.info.parameter_status("server_version") or "unknown",
        "psycopg": f"{version('psycopg')} ({_implementation()})",
        "redis-py": version("redis"),
    }


def _redis_server(client: redis.Redis) -> str:
    server = client.info("server")
    assert isinstance(server, dict)  # this client waits for its answers
    return f"Valkey {server['valkey_version']}" if "valkey_version" in server else f"Redis {server['redis_version']}"


def _implementation() -> str:
    from psycopg import pq

    return pq.__impl__


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpus.read_text()) if cpus.exists() else None
    return found[1] if found else platform.processor() or "unknown"
