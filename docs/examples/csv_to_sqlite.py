"""Wait for the ids of a CSV file, and write each result to SQLite when it ends.

python docs/examples/csv_to_sqlite.py ids.csv results.db

The CSV has a column `id`. Killed at any moment, even by `kill -9`, it continues where it was when
it is run again: a result is in the database before the next one is awaited, and only ids without
a result are waited for.
"""

import asyncio
import csv
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from luma_async import Generation, Learned, LumaSession, WaitIncomplete

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds
TIMEOUT = float(os.environ.get("TIMEOUT", "3600"))  # seconds

TABLE = """
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT PRIMARY KEY, state TEXT, url TEXT, reason TEXT, ended_at TEXT
) WITHOUT ROWID
"""


# start of the recipe
def read_ids(path: Path) -> Iterator[str]:
    """Yield the column `id` of a CSV file; "utf-8-sig" also reads what Excel saves."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            if task_id := row["id"].strip():
                yield task_id


def save(database: sqlite3.Connection, generation: Generation) -> None:
    """Write one result; it is on disk when this returns."""
    with database:  # one transaction
        database.execute(
            "UPDATE tasks SET state = ?, url = ?, reason = ?, ended_at = datetime('now')"
            " WHERE id = ?",
            (generation.state.value, generation.url, generation.failure_reason, generation.id),
        )


async def main(ids: Path, results: Path) -> int:
    """Wait for all ids without a result; return the exit code."""
    with closing(sqlite3.connect(results)) as database:
        with database:
            database.execute(TABLE)
            rows = ((task_id,) for task_id in read_ids(ids))
            database.executemany("INSERT OR IGNORE INTO tasks (id) VALUES (?)", rows)
        query = "SELECT id FROM tasks WHERE state IS NULL"
        unfinished = [task_id for (task_id,) in database.execute(query)]
        print(f"waiting for {len(unfinished)} tasks", flush=True)
        try:
            async with LumaSession(pace=PACE) as luma:
                async for generation in luma.as_completed(unfinished, timeout=TIMEOUT):
                    save(database, generation)
        except WaitIncomplete as error:
            for task_id in error.missing:
                with database:
                    database.execute("UPDATE tasks SET state = 'missing' WHERE id = ?", (task_id,))
            print(f"{error}; run it again for {len(error.pending)} tasks", file=sys.stderr)
            return 1
    return 0


# end of the recipe
if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]))))
