"""What a container lets its processes use (Linux control groups, versions 1 and 2)."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_memory(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes that may still be used; None without a limit. File cache counts as free."""
    left = []
    for folder in _folders(root, membership, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None:
                left.append(max(0, limit - used + _statistic(folder / "memory.stat", cache_name)))
    return min(left, default=None)


def cpu_quota(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Cores' worth of time that may be used; None without a limit."""
    quotas = []
    for folder in _folders(root, membership, "cpu"):
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        version_1 = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if version_1[0] is not None and version_1[1] and version_1[0] > 0:
            quotas.append(version_1[0] / version_1[1])
    return min(quotas, default=None)


def _folders(root: Path, membership: Path, controller: str) -> list[Path]:
    """This process's group and all groups above it: each may limit."""
    if not membership.is_file():
        return []
    folders = []
    for line in membership.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        folder = base / group.lstrip("/")
        # Inside a container the path may be the host's; what the container sees is the root.
        folders += [f for f in (folder, *folder.parents) if f == base or base in f.parents]
    return [folder for folder in folders if folder.is_dir()]


def _number(file: Path) -> int | None:
    if not file.is_file():
        return None
    text = file.read_text().strip()
    return None if text == "max" else int(text)


def _statistic(file: Path, name: str) -> int:
    if not file.is_file():
        return 0
    rows = (line.split() for line in file.read_text().splitlines())
    return next((int(row[1]) for row in rows if row[0] == name), 0)
