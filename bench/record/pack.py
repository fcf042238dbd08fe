"""One experiment's records as two files: `records.zip` for machines, `summary.csv` for readers.

The same records give the same bytes, so that a pack that is renewed shows in version control what has changed.
"""

import io
import os
import zipfile
from pathlib import Path

from bench.api.errors import StoreError
from bench.record import scaling, searches
from bench.record.files import SAFE_NAME, atomic_write, csv_bytes, is_link
from bench.record.packed import LARGEST_PACK
from bench.record.reader import PACK, Record, records
from bench.record.results import Results
from bench.record.scaling import Point
from bench.record.schema import IDENTITY, WEIGHTS, WEIGHTS_SHA256
from bench.record.searches import Found
from bench.record.spreadsheet import cell

SUMMARY = "summary.csv"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a ZIP file can name


def pack(root: Path, out: Path, *, replace: bool = False, weights: bool = True) -> None:
    """Pack the runs below root, an experiment's folder, into out; with them points of scaling and what a search found.

    replace: also where out holds what root lacks, as another experiment's pack does. weights: those kept, too.
    Raises: StoreError where a record is corrupt, root holds several experiments, out holds what would be lost, or
    weights are too many for one file.
    """
    if is_link(out) and not out.is_dir():
        raise StoreError(f"{out} is a link that leads to no folder; remove it, or name another folder")
    root, out = root.resolve(), out.resolve()
    found = records(root)
    points = scaling.load(root)
    if {record.folder for record in found} != {root} and (found or not points):
        raise StoreError(f"{root} is not the folder of one experiment; pack each by itself")
    summary = _summary(root) if found else b""
    tried = searches.load(searches.beside(root))
    packed = _zip(found, weights=weights) if found else b""
    if not replace and out != root:
        _refuse_loss(out, {record.run_id for record in found}, points, tried)
    if found:
        atomic_write(out / PACK, packed)
        atomic_write(out / SUMMARY, summary)
    for point in points:
        scaling.save(out, point)
    if tried:
        searches.save(tried, searches.beside(out))


def _refuse_loss(out: Path, runs: set[str], points: list[Point], tried: list[Found]) -> None:
    """Raises: StoreError where out holds something else than an earlier state of what is packed."""
    mend = "name another folder, or replace it with --replace"
    there = {record.run_id for record in records(out, may_be_empty=True)} if out.is_dir() else set()
    if lost := len(there - runs):
        raise StoreError(f"{out} holds {lost} runs that are not among those to be packed; {mend}")
    if not there and os.path.lexists(out / SUMMARY):
        raise StoreError(f"{out / SUMMARY} is not of a pack; {mend}")
    kept = {point.point_id for point in points}
    if any(point.point_id not in kept for point in scaling.load(out)):
        raise StoreError(f"{out} holds points of scaling that are not among those to be packed; {mend}")
    rows = {(row.method, row.net, row.dataset, row.variant) for row in tried}
    beside = searches.beside(out)
    others = [row for row in searches.load(beside) if (row.method, row.net, row.dataset, row.variant) not in rows]
    if tried and others:
        raise StoreError(f"{beside} holds searches that are not among those to be packed; {mend}")


def _zip(found: list[Record], *, weights: bool) -> bytes:
    buffer, size = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w") as file:
        for record in sorted(found, key=lambda record: record.run_id):
            for name in sorted(record.names):
                data = record.read(name) if _is_kept(name, weights=weights) else None
                if data:
                    member = zipfile.ZipInfo(f"{record.run_id}/{name}", EPOCH)
                    member.external_attr = 0o644 << 16
                    if (size := size + len(data)) > LARGEST_PACK:
                        raise StoreError(f"{found[0].folder}: a pack holds 1 GiB at most; pack it with --no-weights")
                    how = zipfile.ZIP_STORED if name == WEIGHTS else zipfile.ZIP_DEFLATED  # noise, which packs badly
                    file.writestr(member, data, how, 9)
    return buffer.getvalue()


def _is_kept(name: str, *, weights: bool) -> bool:
    """Neither a lock nor a file half written nor what only a run in hand needs."""
    left_out = {"checkpoint.pt"} if weights else {"checkpoint.pt", WEIGHTS}
    return SAFE_NAME.fullmatch(name) is not None and name not in left_out


def _summary(root: Path) -> bytes:
    """What names each run and all that was measured in it, unrounded; a column that is empty throughout is left out."""
    rows = [row.values for row in Results(root, columns=(), all_sources=True).rows]
    known = [*IDENTITY[:6], "variant", *IDENTITY[6:]]
    present = {key for row in rows for key, value in row.items() if value is not None and value != ""}
    fields = [*known, *sorted(present.difference(known, ("data_fingerprint", WEIGHTS_SHA256)))]
    shown = [{str(cell(name)): cell(value) for name, value in row.items()} for row in rows]
    return csv_bytes([str(cell(field)) for field in fields if field in present], shown)
