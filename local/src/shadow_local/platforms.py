"""Where this runner's parts exist: Envoy and Postgres come as wheels for few platforms."""

from __future__ import annotations

import platform
import sys


def unsupported() -> str | None:
    """Why this machine cannot run the deployment, in one line; None when it can."""
    machine, name = platform.machine(), sys.platform
    if name == "linux" and machine in ("x86_64", "aarch64") and platform.libc_ver()[0] == "glibc":
        return None
    if name == "darwin" and machine == "arm64" and _macos_major() >= 15:
        return None
    return (
        f"shadow-local: {name} on {machine} is not supported; it runs on Linux with glibc on "
        "x86_64 or aarch64 and on macOS 15 or newer on arm64."
    )


def _macos_major() -> int:
    return int(platform.mac_ver()[0].split(".")[0] or 0)
