"""Formats cells and tables in Markdown."""


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Formats a table, given the title of each column and the cells of each row."""
    lines = [titles, ("---",) * len(titles), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def device(record: dict) -> str:
    """Returns the device of a record or summary, with its number of cores if it is a CPU."""
    device = record["device"]
    kind = f"{device['count']} x {device['kind']}" if device["count"] > 1 else device["kind"]
    cores = device.get("cores")
    return kind if not cores else f"{kind}, {cores} {'core' if cores == 1 else 'cores'}"
