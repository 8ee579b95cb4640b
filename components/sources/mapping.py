"""From blocks of a table to rows: ids, groups, moments and labels as the project declares."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.errors import ConfigError, SourceError
from components.occurrences import Occurrences
from components.sources.block import Block, Unreadable, shown_row
from components.sources.columns import EPOCHS, ISO, ColumnNames, Part, Pixels, TableConfig
from components.sources.delimited import SEPARATORS
from components.sources.rows import COLUMNS
from components.split import content_digests, unit_interval
from components.tasks.columns import records_of
from components.tasks.image_classification import encode_png

MOMENT, UNBINNED, TABLE, ROW = "_moment", "_unbinned", "_table", "_row"
"""Columns of kept rows beside ``COLUMNS``: when it happened, whether its label is in no bin,
the table that it comes from, and its number there."""
ORDER = (MOMENT, "id", TABLE, ROW)
"""By what the rows of a window are sorted."""
INSTANT = pa.timestamp("us", "UTC")
_OFFSET = r"[Tt ]\d.*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"
"""Ends a time of day that says how far it is from UTC."""
_CARRIES_OFFSET = re.compile(r"(?<!%)(?:%%)*%:?[zZ]")
"""In a pattern of strptime, says how far a time is from UTC."""
_FIRST, _AFTER = np.datetime64("1900-01-01", "us"), np.datetime64("2201-01-01", "us")

Picture = Callable[[str], bytes | None]
"""Returns the image file of a path in a table, None if there is none."""


def kept_schema(config: TableConfig) -> Any:
    """Return the Arrow schema of kept rows."""
    names = [name for name in COLUMNS if name != "time"]
    return pa.schema(
        [
            *((name, pa.string()) for name in (*names, *config.metadata)),
            (MOMENT, INSTANT),
            (UNBINNED, pa.bool_()),
            (TABLE, pa.string()),
            (ROW, pa.int64()),
        ]
    )


def wanted_columns(names: ColumnNames) -> list[str]:
    """Return the columns of a table to read; empty is all of them."""
    if names.pixels:
        return []
    return sorted({*names.wanted.values(), *(names.record or ())})


class Mapper:
    """Makes rows of the blocks of one table, in order."""

    def __init__(self, config: TableConfig, part: Part, table: str, day: str, picture: Picture):
        """Describe the table.

        Args:
            config: the source's section.
            part: that the table belongs to.
            table: its name.
            day: of all its rows, YYYY-MM-DD; empty if they carry times, or none.
            picture: finds its images.
        """
        self._config, self._part, self._table, self._day = config, part, table, day
        self._picture = picture
        self._names: ColumnNames = part.columns or config.columns
        self._schema = kept_schema(config)
        self._seen = Occurrences()
        self._offsets: bool | None = None
        self._numeric = False
        self._last: Any = None
        self._numbers = np.zeros(0, np.int64)
        self.columns: list[str] = []
        self.readable = 0

    def rows(self, block: Block) -> tuple[Any, list[tuple[Unreadable, Any]]]:
        """Return the rows of a block, and what cannot be one with the moment to file it under."""
        self.columns, self._numbers = block.columns, block.rows
        if block.columns_are_known:
            self.check(empty_is_wrong=False)
        table, count = block.table, len(block.rows)
        columns = {
            name: _chunk(table, column)
            for name, column in self._names.wanted.items()
            if column in table.column_names
        }
        absent = pa.nulls(count, pa.string())
        if self._names.pixels is not None:
            columns["text"] = pa.array(self._drawn(table, self._names.pixels), pa.string())
        elif self._names.record is not None:
            records = records_of(table.select(self._names.record).to_pandas().astype(object))
            columns["text"] = pa.array(records, pa.string())
        elif self._names.image is not None and not block.images:
            paths = columns.get("text", absent).to_pylist()
            columns["text"] = pa.array([self._image(path) for path in paths], pa.string())
        for name in self._config.metadata:
            trimmed = pc.utf8_trim_whitespace(columns.get(name, absent))
            columns[name] = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
        texts = columns.setdefault("text", absent)
        columns.setdefault("label", absent)
        columns["source"] = pa.repeat(pa.scalar(self._part.name or None, pa.string()), count)
        moments, wrong = self._moments(columns.pop("time", absent), count)
        columns[MOMENT] = moments
        columns["id"] = self._ids(columns.get("id"), texts)
        columns["group"] = self._groups(columns.get("group", absent), columns["id"], texts)
        columns["label"], columns[UNBINNED] = self._labels(columns["label"], count)
        columns[TABLE] = pa.repeat(pa.scalar(self._table, pa.string()), count)
        columns[ROW] = pa.array(block.rows)
        rows = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        self.readable += count - int(np.count_nonzero(wrong))
        unreadable = self._filed(block, table, moments, wrong)
        keep = wrong == ""
        low, high = self._part.share
        if (low, high) != (0, 1):
            place = unit_interval(rows["id"].to_pylist(), "share")
            keep &= (place >= low) & (place < high)
        return rows if keep.all() else rows.filter(pa.array(keep)), unreadable

    def check(self, empty_is_wrong: bool) -> None:
        """Refuse a table that was read to its end and is none.

        Raises:
            ConfigError: it lacks a column.
            SourceError: it is empty, or none of its rows can be read.
        """
        names = self._names
        if not self.columns:
            if empty_is_wrong:
                raise SourceError(f"{self._table} is empty")
            return
        needed = {*names.wanted.values(), *(names.record or ())}
        if names.pixels is not None:
            needed |= {names.pixels.first, names.pixels.last}
        if missing := sorted(needed - set(self.columns)):
            raise ConfigError(
                f"{self._table} has no column {', '.join(missing)}; "
                f"it has {_some(self.columns)}. "
                + _mend(self.columns, self._config.separator, missing, names)
            )
        if twice := sorted(name for name in needed if self.columns.count(name) > 1):
            raise ConfigError(f"{self._table} has two columns {', '.join(twice)}; rename one")

    def _filed(
        self, block: Block, table: Any, moments: Any, wrong: NDArray[np.str_]
    ) -> list[tuple[Unreadable, Any]]:
        """Return what is unreadable with the moment of the row before it in the table."""
        found = list(block.unreadable)
        for row in np.flatnonzero(wrong != ""):
            raw = shown_row(table, int(row))
            found.append(Unreadable(int(block.rows[row]), str(wrong[row]), raw))
        if not found:
            if moments.null_count == 0 and len(moments):
                self._last = moments[len(moments) - 1]
            return []
        good = np.flatnonzero((wrong == "") & ~np.asarray(pc.is_null(moments)))
        filed = []
        for each in sorted(found):
            before = good[: np.searchsorted(block.rows[good], each.row)]
            filed.append((each, moments[int(before[-1])] if len(before) else self._last))
        if len(good):
            self._last = moments[int(good[-1])]
        return filed

    def _ids(self, ids: Any, texts: Any) -> Any:
        if ids is None:
            keys = [digest[:8] for digest in content_digests(texts)]
            numbers = self._seen.add(np.frombuffer(b"".join(keys), ">u8").astype(np.uint64))
            # Of equal keys, the second ``a`` is ``a#2``.
            ids = pa.array(
                [
                    key.hex() if number == 1 else f"{key.hex()}#{number}"
                    for key, number in zip(keys, numbers.tolist(), strict=True)
                ],
                pa.string(),
            )
        if self._part.name:
            ids = pc.binary_join_element_wise(f"{self._part.name}:", ids, "")
        return ids

    def _groups(self, groups: Any, ids: Any, texts: Any) -> Any:
        if self._config.group_pattern is not None:
            pattern = re.compile(self._config.group_pattern)
            found = [(value, pattern.search(value or "")) for value in ids.to_pylist()]
            groups = pa.array(
                [value if match is None else match[1] for value, match in found], pa.string()
            )
        if not groups.null_count:
            return groups
        lone = pc.is_null(groups)
        contents = [digest.hex() for digest in content_digests(texts.filter(lone))]
        return pc.replace_with_mask(groups, lone, pa.array(contents, pa.string()))

    def _moments(self, times: Any, count: int) -> tuple[Any, NDArray[np.str_]]:
        """Return the moment of each row, and why there is none where there should be."""
        wrong = np.full(count, "", dtype="<U20")
        if self._day:
            midnight = pd.Timestamp(self._day).tz_localize(
                ZoneInfo(self._config.timezone), ambiguous=True, nonexistent="shift_forward"
            )
            # In UTC already: what Arrow makes of other zones depends on who else is loaded.
            return pa.array([midnight.tz_convert("UTC").to_pydatetime()] * count, INSTANT), wrong
        if self._names.time is None:
            return pa.nulls(count, INSTANT), wrong
        values = self._instants(times)
        written = np.asarray(pc.is_valid(times))
        wrong[~written] = "missing-time"
        wrong[written & np.isnat(values)] = "unreadable-time"
        wrong[(values < _FIRST) | (values >= _AFTER)] = "implausible-time"
        return pa.array(values, pa.timestamp("us")).cast(INSTANT), wrong

    def _instants(self, times: Any) -> NDArray[np.datetime64]:
        """Return times as instants in UTC, NaT where one is missing or is none."""
        style = self._names.time_format
        if style in EPOCHS:
            numbers = pd.to_numeric(times.to_pandas(), errors="coerce").to_numpy(np.float64)
            limit = 2**62 / EPOCHS[style]
            fine = np.abs(numbers) < limit  # False for NaN
            return np.where(
                fine, np.where(fine, numbers, 0) * EPOCHS[style], np.iinfo(np.int64).min
            ).astype("<M8[us]")
        if style != ISO:
            carried = _CARRIES_OFFSET.search(style) is not None
            found = _leniently(times, carried, style)
            return found if carried else self._local(found)
        some, found = self._iso(times)
        if some is not None:
            if self._offsets not in (None, some):
                raise self._mixed_times(times)
            self._offsets = some
        return found if some else self._local(found)

    def _iso(self, times: Any) -> tuple[bool | None, NDArray[np.datetime64]]:
        """Return whether ISO 8601 times carry offsets, None without any time, and the times."""
        if times.null_count == len(times):
            return None, np.full(len(times), "NaT", "<M8[us]")
        # Arrow reads times with offsets as instants alone, and others as none.
        for some, kind in ((False, pa.timestamp("us")), (True, INSTANT)):
            try:
                read = times.cast(kind)
            except pa.ArrowInvalid:
                continue
            return some, read.to_numpy(zero_copy_only=False).astype("<M8[us]")
        carried = pc.fill_null(pc.match_substring_regex(times, _OFFSET), False)
        aware, local = carried, pc.invert(carried)
        found = [_leniently(times.filter(aware), True), _leniently(times.filter(local), False)]
        there = [not np.isnat(each).all() for each in found]
        # What is no time at all is neither with an offset nor without.
        if all(there):
            raise self._mixed_times(times)
        values = np.full(len(times), "NaT", "<M8[us]")
        for read, mask in zip(found, (aware, local), strict=True):
            values[np.asarray(mask)] = read
        return (there[0] if any(there) else None), values

    def _mixed_times(self, times: Any) -> SourceError:
        carried = np.asarray(pc.fill_null(pc.match_substring_regex(times, _OFFSET), False))
        there = np.asarray(pc.fill_null(pc.match_substring_regex(times, r"^\d{4}-?\d\d"), False))
        first = carried if self._offsets is None else there & (carried != self._offsets)
        others = there & ~carried if self._offsets is None else np.zeros(len(times), bool)
        shown = [
            f"row {self._numbers[place]} has {times[place].as_py()[:40]!r}"
            for place in sorted(
                int(np.flatnonzero(each)[0]) for each in (first, others) if each.any()
            )
        ]
        return SourceError(
            f"{self._table}: the times are not all ISO 8601: some carry an offset and some do not "
            f"({', '.join(shown)}); write them in one way"
        )

    def _local(self, clock: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
        """Return instants of a wall clock in the source's zone."""
        if self._config.timezone == "UTC":
            return clock
        fine = (clock > _FIRST - np.timedelta64(2, "D")) & (clock < _AFTER + np.timedelta64(2, "D"))
        index = pd.DatetimeIndex(np.where(fine, clock, np.datetime64("NaT")))
        zone = ZoneInfo(self._config.timezone)
        local = index.tz_localize(
            zone, ambiguous=np.ones(len(index), bool), nonexistent="shift_forward"
        )
        return np.where(fine, _naive(local.tz_convert("UTC")), clock)

    def _labels(self, labels: Any, count: int) -> tuple[Any, Any]:
        bins = self._config.label_bins
        if bins is None:
            return labels, pa.array(np.zeros(count, bool))
        written = labels.to_pandas()
        values = pd.to_numeric(written, errors="coerce").astype(np.float64)
        self._numeric = self._numeric or bool(values.notna().any())
        if not self._numeric and written.notna().any():
            raise SourceError(
                f"{self._table}: label_bins needs numeric labels, not {written.dropna().iloc[0]!r}"
            )
        cut = pd.Series(None, index=written.index, dtype=object)
        for name, (above, below) in bins.items():
            inside = values.notna()
            if above is not None:
                inside &= values > above
            if below is not None:
                inside &= values < below
            cut[inside] = name
        unbinned = cut.isna() & values.notna()
        # What is no number is left for the validation to find.
        cut = cut.where(values.notna(), written)
        return pa.array(cut.where(cut.notna(), None), pa.string()), pa.array(unbinned.to_numpy())

    def _image(self, path: str | None) -> str | None:
        picture = None if path is None else self._picture(path)
        return None if picture is None else base64.b64encode(picture).decode("ascii")

    def _drawn(self, table: Any, pixels: Pixels) -> list[str | None]:
        """Return base64 of a PNG for each row, None where a pixel is no number in range."""
        names = table.column_names
        if not {pixels.first, pixels.last} <= set(names):
            self.check(False)
        columns = names[names.index(pixels.first) : names.index(pixels.last) + 1]
        if len(columns) != pixels.height * pixels.width:
            raise ConfigError(
                f"{self._table} has {len(columns)} columns from {pixels.first} to {pixels.last}, "
                f"but an image of {pixels.height} x {pixels.width} needs "
                f"{pixels.height * pixels.width}. Mend source.columns.pixels."
            )
        values = np.stack(
            [
                pd.to_numeric(table[column].to_pandas(), errors="coerce").to_numpy(np.float64)
                for column in columns
            ],
            axis=1,
        )
        good = np.all((values >= 0) & (values <= pixels.maximum), axis=1)
        grey = np.zeros(values.shape, dtype=np.uint8)
        grey[good] = np.rint(values[good] * (255 / pixels.maximum)).astype(np.uint8)
        images = grey.reshape(-1, pixels.height, pixels.width)
        return [
            encode_png(image) if whole else None for image, whole in zip(images, good, strict=True)
        ]


def _chunk(table: Any, column: str) -> Any:
    values = table.column(table.column_names.index(column))
    return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)


def _naive(index: Any) -> NDArray[np.datetime64]:
    values: NDArray[np.datetime64] = (
        pd.DatetimeIndex(index).tz_convert(None).to_numpy().astype("<M8[us]")
    )
    return values


def _leniently(times: Any, utc: bool, style: str = ISO) -> NDArray[np.datetime64]:
    """Return times one by one, NaT where one is none.

    Args:
        times: texts ``[n]``.
        utc: whether they carry offsets.
        style: a pattern of strptime, or ISO 8601.
    """
    # Words such as "now" are read by a clock, and mean something else each time.
    times = pc.if_else(pc.match_substring_regex(times, r"\d"), times, None)
    values = times.to_pandas()
    wanted = "ISO8601" if style == ISO else style
    parsed = pd.to_datetime(values, format=wanted, errors="coerce", utc=utc)
    found: NDArray[np.datetime64] = _naive(parsed) if utc else parsed.to_numpy().astype("<M8[us]")
    for place in np.flatnonzero(np.isnat(found) & np.asarray(pc.is_valid(times))):
        found[place] = _far(values.iloc[place], style)
    return found


def _far(text: str, style: str) -> np.datetime64:
    """Return a time that pandas does not know, for it is centuries away; NaT for what is none."""
    try:
        read = datetime.fromisoformat(text) if style == ISO else datetime.strptime(text, style)
        moment = np.datetime64(
            (read.astimezone(UTC) if read.tzinfo else read).replace(tzinfo=None), "us"
        )
    except (ValueError, OverflowError):
        return np.datetime64("NaT", "us")
    return moment if moment < _FIRST or moment >= _AFTER else np.datetime64("NaT", "us")


def _some(names: list[str]) -> str:
    """Return the names of columns as far as they can be shown."""
    shown = [name if name.isprintable() and len(name) <= 60 else repr(name[:30]) for name in names]
    return ", ".join(shown[:30]) + (", …" if len(shown) > 30 else "")


def _mend(columns: list[str], separator: str, missing: list[str], names: ColumnNames) -> str:
    """Say which key is wrong where columns are missing."""
    if len(columns) == 1:
        held = {each: columns[0].count(each) for each in SEPARATORS if each != separator}
        likely = max(held, key=lambda each: held[each])
        if held[likely]:
            return (
                f"It seems to be separated by {likely!r}, not by {separator!r}. "
                "Mend source.separator."
            )
    if set(missing) <= {each.column or name for name, each in names.metadata.items()}:
        return "Mend source.columns.metadata, or give this file columns of its own without it."
    return "Mend source.columns."
