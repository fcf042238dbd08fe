"""One experiment's records as two files: `records.zip` for machines, `summary.csv` for readers.

The same records give the same bytes, so that a pack that is renewed shows in version control what has changed.
"""

import io
import zipfile
from pathlib import Path

from bench.api.errors import StoreError
from bench.record import scaling, searches
from bench.record.files import atomic_write, csv_bytes
from bench.record.reader import PACK, Record, records
from bench.record.results import Results
from bench.record.schema import IDENTITY
from bench.record.spreadsheet import cell

SUMMARY = "summary.csv"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a ZIP file can name


def pack(root: Path, out: Path) -> None:
    """Pack the runs below root, an experiment's folder, into out; with them points of scaling and what a search found.

    Raises: StoreError where a record is corrupt, or root holds several experiments.
    """
    root, out = root.resolve(), out.resolve()
    found = records(root)
    points = scaling.load(root)
    if {record.folder for record in found} != {root} and (found or not points):
        raise StoreError(f"{root} is not the folder of one experiment; pack each by itself")
    summary = _summary(root) if found else b""
    tried = searches.load(searches.beside(root))
    if found:
        atomic_write(out / PACK, _zip(found))
        atomic_write(out / SUMMARY, summary)
    for point in points:
        scaling.save(out, point)
    if tried:
        searches.save(tried, searches.beside(out))


def _zip(found: list[Record]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for record in sorted(found, key=lambda record: record.run_id):
            for name in sorted(record.names):
                data = record.read(name) if _is_kept(name) else None
                if data:
                    member = zipfile.ZipInfo(f"{record.run_id}/{name}", EPOCH)
                    member.external_attr = 0o644 << 16
                    file.writestr(member, data, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def _is_kept(name: str) -> bool:
    """Neither a lock nor a file half written nor what only a run in hand needs."""
    return not name.startswith(".") and name != "checkpoint.pt"


def _summary(root: Path) -> bytes:
    """What names each run and all that was measured in it, unrounded; a column that is empty throughout is left out."""
    rows = [row.values for row in Results(root, columns=(), all_sources=True).rows]
    known = [*IDENTITY[:6], "variant", *IDENTITY[6:]]
    present = {key for row in rows for key, value in row.items() if value is not None and value != ""}
    fields = [*known, *sorted(present.difference(known, ("data_fingerprint",)))]
    shown = [{str(cell(name)): cell(value) for name, value in row.items()} for row in rows]
    return csv_bytes([str(cell(field)) for field in fields if field in present], shown)
