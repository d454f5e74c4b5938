"""Rows by formula: the source object of Data Cloud, the accounts they refer to, and what a day makes of them.

Every value follows from the seed and the number of its row, so that two orgs of one seed hold the same rows. Rows are
made some ten thousand at a time, in the order of the key's UTF-8 bytes. A share of the values is hostile on purpose:
separators, quotes and foreign letters in names, nulls, amounts that Salesforce writes as 1.2345678E7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec
import polars as pl

from sync_pipeline.simulated_org.identifiers import salesforce_ids
from sync_pipeline.simulated_org.objects import STAGES, SObject, find_object
from sync_pipeline.simulated_org.records import KEY, Records, match_key
from sync_pipeline.simulated_org.source import source_objects, write_source
from sync_pipeline.simulated_org.state import Org

Keys = Literal["dense", "clustered", "mixed"]
"""``externalOpp0000001`` and on; bunches far apart behind long common beginnings; many shapes up to 255 characters."""

SOURCE: Final = "ExtOpportunities__dlm"
SCHEMA: Final = pl.Schema(
    {
        "ExternalId__c": pl.String(),
        "Name__c": pl.String(),
        "StageName__c": pl.String(),
        "Amount__c": pl.Decimal(18, 2),
        "CloseDate__c": pl.Date(),
        "Account__c": pl.String(),
        "LastModifiedDate__c": pl.Datetime("ms", "UTC"),
    }
)
FORMULA_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS formula (object TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
"""

PIECE_ROWS: Final = 50_000
"""Rows that are in memory at once while they are made."""
ROWS_PER_ACCOUNT: Final = 10
HOT_ACCOUNTS: Final = 5
"""Accounts on which the rows of ``hot_parents`` lie."""
NULLS_PER_THOUSAND: Final = 20
"""Null amounts, and null accounts, among a thousand rows."""
KEY_LENGTH: Final = 255
FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Rows of the first night were modified in the month before, those of a later one on its day."""
DAY_MS: Final = 86_400_000

NAMES: Final = (
    "Acme renewal", "Globex licences", "Initech support", "Umbrella rollout", "Hooli migration", "Stark pilot",
    "Wayne extension", "Wonka upgrade", "Tyrell audit", "Cyberdyne training", "Soylent trial", "Vandelay import",
    "Oscorp framework", "Massive hosting", "Pied Piper storage", "Duff delivery", "Gringotts vault", "Monsters scare floor",
    "Müller, Söhne & Co.", 'The "big" one', "O'Brien\\Partners", "Ødegård/fjord", "東京支店", "Данные; поставка",
    "=1+1", "100% 'sure'", "cafe\N{COMBINING ACUTE ACCENT}, bar", 'Launch 🚀, "phase 2"', "\N{MATHEMATICAL FRAKTUR CAPITAL U}nicode 𐐀", "tab\there",
    "  blanks  inside", "שלום",
)  # fmt: skip
INDUSTRIES: Final = ("Agriculture", "Banking", "Energy", "Retail", "Transportation", "Utilities")
EDGE_DATES: Final = (date(1700, 1, 1), date(1969, 12, 31), date(2000, 2, 29), date(4000, 12, 31))


@dataclass(frozen=True)
class Region:
    """A part of the key space. Its keys are ``prefix`` and a number; after each ``run`` of rows the number jumps ahead."""

    prefix: str
    share: float
    """Of all rows."""
    run: int = 0


DENSE_WIDTH, WIDTH = 7, 18
JUMP: Final = 1_000_000_000
DENSE: Final = (Region("externalOpp", 1.0),)
CLUSTERED: Final = (
    Region("externalOpp/amer/1999/archive-of-the-first-system/unknown-region/record-", 0.01, run=10),
    Region("externalOpp/emea/2019/import-of-the-second-system/headquarters/record-", 0.60, run=100_000),
    Region("externalOpp/emea/2019/import-of-the-second-system/headquarters/recordset-", 0.04, run=7),
    Region("externalOpp/emea/2024/import-of-the-third-system/headquarters/record-", 0.30, run=1_000),
    Region("externalOpp/zz/test/record-", 0.05, run=1),
)
MIXED_PREFIXES: Final = (
    "!", '"quoted" ', "#", "%", "'single' ", "(a) ", "+49 ", ",", "--", "..", "/a/b?c=", "", ";", "=", "@", "A B  C ",
    "EXT,", "EXTERNALOPP", "ExtOpp ", "[x]", "\\back\\", "_", "`", "ext.", "extOpp%", "externalOpp", "{}", "|", "~",
    "Äpfel ", "ключ-", "鍵", "\N{FULLWIDTH LATIN CAPITAL LETTER A}", "𐐀", "\N{MATHEMATICAL FRAKTUR SMALL O}pp-", "🔑 ",
)  # fmt: skip
"""In the order of their UTF-8 bytes. By UTF-16 units the fullwidth letter would come after the three below it."""
MIXED_TAILS: Final = (
    "", "", "", "", ",x", '"', "''", "%", "_%", ".csv", " a  b", "é", "e\N{COMBINING ACUTE ACCENT}", "🙂", "𠮷", "\\",
)  # fmt: skip
MIXED: Final = tuple(Region(prefix, 1 / len(MIXED_PREFIXES)) for prefix in MIXED_PREFIXES)
FILLER: Final = "abcdefghij klmnopqrst,uvwxyz'0123456789%" * 7

GOLDEN: Final = 0x9E3779B97F4A7C15
MIXING: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Shifts and factors of SplitMix64."""
UINT64: Final = 2**64


@dataclass(frozen=True)
class Formula:
    """How the rows of an org were made: kept in the org, so that its next nights go on from there."""

    keys: Keys
    seed: int
    rows: int
    accounts: int
    hot_parents: float
    following: int
    """Number of the next new row."""
    night: int = 0

    @property
    def regions(self) -> tuple[Region, ...]:
        return {"dense": DENSE, "clustered": CLUSTERED, "mixed": MIXED}[self.keys]

    @property
    def width(self) -> int:
        """Digits of the number in a key."""
        dense = max(DENSE_WIDTH, len(str(self.rows)))
        return {"dense": dense, "clustered": WIDTH, "mixed": dense + 2}[self.keys]

    def draw(self, numbers: pl.Series, purpose: str) -> pl.Series:
        """64 random bits for each number: the same ones for the same seed, night and purpose (SplitMix64)."""
        salt = _mixed(_mixed(_mixed(self.seed) + self.night) + int.from_bytes(purpose.encode(), "big"))
        bits = numbers.cast(pl.UInt64) * _bits(GOLDEN) + _bits(salt)
        for shift, factor in MIXING:
            bits = (bits ^ (bits // _bits(2**shift))) * _bits(factor)
        return bits ^ (bits // _bits(2**31))


@dataclass(frozen=True)
class Seeded:
    """What ``seed`` made."""

    rows: int
    accounts: int
    in_org: int
    """Opportunities that the CRM holds already."""


@dataclass(frozen=True)
class Day:
    """What ``next_night`` did to the source. ``rows`` are those it holds afterwards."""

    rows: int
    changed: int
    inserted: int
    deleted: int


def is_seeded(folder: Path) -> bool:
    """Whether there is an org with a source object in that folder. Asking makes nothing."""
    if not (folder / "source.sqlite").exists():
        return False
    org = Org(folder)
    try:
        return bool(source_objects(org))
    finally:
        org.close()


def seed(
    org: Org,
    rows: int,
    *,
    keys: Keys = "dense",
    hot_parents: float = 0.0,
    seed: int = 1,
    accounts: int | None = None,
    in_org: float = 0.0,
    null_keys: int = 0,
    duplicate_keys: int = 0,
    folded_keys: int = 0,
) -> Seeded:
    """Makes ``rows`` rows the source object, and the CRM's accounts; by default one for ten rows.

    Among the rows are ``null_keys`` without a key, ``duplicate_keys`` with the key of another row, and ``folded_keys``
    with a key that equals another one when it is trimmed and its letter case is folded; without them no two keys do.
    ``hot_parents`` is the share of rows on a few accounts. With ``in_org``, a share, the CRM's opportunities become so
    many of the rows, with other values than the source; with 0 they stay as they are. Raises ``ValueError``.
    """
    odd = null_keys + duplicate_keys + folded_keys
    if min(rows, null_keys, duplicate_keys, folded_keys) < 0 or odd > rows or (odd > null_keys and odd == rows):
        raise ValueError(
            f"{rows} rows cannot hold {null_keys} null, {duplicate_keys} equal and {folded_keys} similar keys"
        )
    if keys not in get_args(Keys):
        raise ValueError(f"keys are {', '.join(get_args(Keys))}, not {keys!r}")
    if not (0 <= hot_parents <= 1 and 0 <= in_org <= 1):
        raise ValueError("hot_parents and in_org are shares between 0 and 1")
    formula = Formula(
        keys=keys,
        seed=seed,
        rows=rows - odd,
        accounts=max(rows // ROWS_PER_ACCOUNT if accounts is None else accounts, 1),
        hot_parents=hot_parents,
        following=rows,
    )
    ids = _account_ids(formula)
    _make_accounts(org, formula, ids)
    known = _make_opportunities(org, formula, ids, in_org) if in_org else 0
    extra = _odd_rows(formula, ids, null_keys, duplicate_keys, folded_keys)
    with org.write("source"):
        made = write_source(org, SOURCE, _with_extra(_plain_rows(formula, ids), extra))
        _keep(org, formula)
    return Seeded(rows=made, accounts=formula.accounts, in_org=known)


def next_night(org: Org, *, change: float = 0.02, insert: float = 0.0, delete: float = 0.0, seed: int = 1) -> Day:
    """Lets a day pass: shares of the rows change, are new, are gone. The same seed gives the same day after the same one.

    Every changed row differs from before, in its stage at least. A share above 0 is one row at least. Raises
    ``LookupError`` for an org that was never seeded and ``ValueError`` for shares that cannot be.
    """
    if not all(0 <= share <= 1 for share in (change, insert, delete)):
        raise ValueError("change, insert and delete are shares between 0 and 1")
    with org.write("source"):
        before = _kept(org)
        formula = replace(before, seed=seed, night=before.night + 1)
        ids = _account_ids(formula)
        file = source_objects(org)[SOURCE]
        rows: int = pl.scan_parquet(file).select(pl.len()).collect().item()
        deleted = _count(delete, rows)
        changed = min(_count(change, rows), rows - deleted)
        inserted = _count(insert, rows)
        numbers = pl.int_range(before.following, before.following + inserted, dtype=pl.Int64, eager=True)
        new = _rows(formula, ids, numbers, _keys(formula, numbers, is_new=True))
        passed = _day(formula, ids, file, rows=rows, deleted=deleted, changed=changed)
        left = write_source(org, SOURCE, _with_extra(passed, new))
        _keep(org, replace(before, following=before.following + inserted, night=formula.night))
    return Day(rows=left, changed=changed, inserted=inserted, deleted=deleted)


# Rows


def _plain_rows(formula: Formula, ids: pl.Series) -> Iterator[pl.DataFrame]:
    """The rows with keys of their own, in the order of the keys."""
    for start in range(0, max(formula.rows, 1), PIECE_ROWS):
        numbers = pl.int_range(start, min(start + PIECE_ROWS, formula.rows), dtype=pl.Int64, eager=True)
        yield _rows(formula, ids, numbers, _keys(formula, numbers))


def _odd_rows(formula: Formula, ids: pl.Series, null_keys: int, duplicate_keys: int, folded_keys: int) -> pl.DataFrame:
    """Rows without a key of their own; their values are their own."""
    texts = [pl.repeat(None, null_keys, dtype=pl.String, eager=True)]
    for count, is_folded in ((duplicate_keys, False), (folded_keys, True)):
        copied = pl.int_range(count, dtype=pl.Int64, eager=True) * formula.rows // max(count, 1)
        text = _keys(formula, copied)
        texts.append(text.str.to_uppercase() + " " if is_folded else text)
    keys = pl.concat(texts)
    numbers = pl.int_range(formula.rows, formula.rows + len(keys), dtype=pl.Int64, eager=True)
    return _rows(formula, ids, numbers, keys)


def _with_extra(pieces: Iterator[pl.DataFrame], extra: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Rows in the order of their keys, with some more put in their places; null keys come first."""
    extra = extra.sort("ExternalId__c")
    following = next(pieces, None)
    while following is not None:
        piece, following = following, next(pieces, None)
        keys = extra["ExternalId__c"]
        if following is None:
            taken = extra.height
        elif piece.height:
            taken = keys.null_count() + int((keys <= piece["ExternalId__c"][-1]).sum())
        else:
            taken = 0
        if taken:
            piece = pl.concat([piece, extra.head(taken)]).sort("ExternalId__c", maintain_order=True)
            extra = extra.slice(taken)
        yield piece


def _rows(formula: Formula, ids: pl.Series, numbers: pl.Series, keys: pl.Series) -> pl.DataFrame:
    """Rows with these keys."""
    first, second = formula.draw(numbers, "row"), formula.draw(numbers, "more")
    until = int((FIRST_DAY + timedelta(days=formula.night)).timestamp() * 1000)
    before = second // 2**20 % (DAY_MS if formula.night > 0 else 30 * DAY_MS)
    return pl.DataFrame(
        {
            "ExternalId__c": keys,
            "Name__c": _names(first, numbers),
            "StageName__c": _chosen(STAGES, first // 2**8),
            "Amount__c": _amounts(first // 2**16, second),
            "CloseDate__c": _dates(first // 2**40),
            "Account__c": _accounts(formula, ids, formula.draw(numbers, "account")),
            "LastModifiedDate__c": (until - before.cast(pl.Int64)).cast(SCHEMA["LastModifiedDate__c"]),
        },
        schema=SCHEMA,
    )


def _changed(formula: Formula, ids: pl.Series, rows: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """Rows with other values: another stage in all of them, other amounts, dates, names and accounts in some."""
    fresh = _rows(formula, ids, numbers, rows["ExternalId__c"])
    bits = formula.draw(numbers, "change")
    stage = rows["StageName__c"].replace_strict(list(STAGES), range(len(STAGES)), default=0, return_dtype=pl.UInt64)
    later = pl.col("CloseDate__c") + pl.duration(days=pl.lit(1 + bits // 2**8 % 30))
    movable = pl.col("CloseDate__c").dt.year().is_between(1800, 3000)
    return rows.with_columns(
        _chosen(STAGES, stage + 1 + bits % (len(STAGES) - 1)).alias("StageName__c"),
        _where(bits // 2**16 % 2 == 0, fresh["Amount__c"]),
        pl.when(movable & (bits // 2**18 % 4 == 0)).then(later).otherwise("CloseDate__c").alias("CloseDate__c"),
        _where(bits // 2**20 % 8 == 0, fresh["Name__c"]),
        _where(bits // 2**24 % 16 == 0, fresh["Account__c"]),
        fresh["LastModifiedDate__c"],
    )


def _where(is_new: pl.Series, values: pl.Series) -> pl.Expr:
    return pl.when(is_new).then(values).otherwise(values.name).alias(values.name)


def _day(
    formula: Formula, ids: pl.Series, file: Path, *, rows: int, deleted: int, changed: int
) -> Iterator[pl.DataFrame]:
    """The rows of a file after a day, without the new ones."""
    kept = 0
    for start in range(0, max(rows, 1), PIECE_ROWS):
        piece = pl.scan_parquet(file).slice(start, PIECE_ROWS).collect()
        places = pl.int_range(start, start + piece.height, dtype=pl.Int64, eager=True)
        piece = piece.filter(~_spread(formula, places, count=deleted, among=rows, purpose="delete"))
        places = pl.int_range(kept, kept + piece.height, dtype=pl.Int64, eager=True)
        kept += piece.height
        is_changed = _spread(formula, places, count=changed, among=rows - deleted, purpose="change")
        other = _changed(formula, ids, piece.filter(is_changed), places.filter(is_changed))
        yield pl.concat([piece.filter(~is_changed), other]).sort("ExternalId__c", maintain_order=True)


def _spread(formula: Formula, places: pl.Series, *, count: int, among: int, purpose: str) -> pl.Series:
    """Marks exactly ``count`` of the places from 0 to ``among``, evenly spread from an offset by formula."""
    if among == 0:
        return pl.repeat(value=False, n=len(places), dtype=pl.Boolean, eager=True)
    offset = int(formula.draw(pl.Series([0]), purpose)[0]) % among
    return (places * count + offset) // among != ((places + 1) * count + offset) // among


def _count(share: float, rows: int) -> int:
    return max(round(share * rows), 1) if share and rows else 0


# Values


def _keys(formula: Formula, numbers: pl.Series, *, is_new: bool = False) -> pl.Series:
    """Keys in their order; those of new rows fall into any region."""
    regions = formula.regions
    if is_new:
        place = formula.draw(numbers, "region") % len(regions)
    else:
        cuts = [round(share * formula.rows) for share in accumulate(region.share for region in regions[:-1])]
        place = pl.Series(cuts, dtype=pl.Int64).search_sorted(numbers, side="right")
    number = numbers + 1
    runs = pl.Series([region.run for region in regions], dtype=pl.Int64).gather(place)
    if runs.max():
        number += number // runs * JUMP
    prefix = pl.Series([region.prefix for region in regions]).gather(place)
    text = prefix + number.cast(pl.String).str.zfill(formula.width)
    return text + _tails(formula, numbers, prefix, text) if formula.keys == "mixed" else text


def _tails(formula: Formula, numbers: pl.Series, prefix: pl.Series, text: pl.Series) -> pl.Series:
    """What follows the number in mixed keys: nothing, some letters, or as much as makes a key long."""
    bits = formula.draw(numbers, "tail")
    units = text.str.len_chars() + text.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
    filler = pl.lit(FILLER).str.slice(0, KEY_LENGTH - units - 1 - bits // 2**16 % 100) + "."
    return pl.select(
        pl.when(prefix == "").then(pl.lit(""))
        .when(bits // 2**8 % 16 == 0).then(filler)
        .otherwise(_chosen(MIXED_TAILS, bits))
    ).to_series()  # fmt: skip


def _names(bits: pl.Series, numbers: pl.Series) -> pl.Series:
    return _chosen(NAMES, bits) + " " + (numbers + 1).cast(pl.String)


def _amounts(kind: pl.Series, bits: pl.Series) -> pl.Series:
    """Money: mostly below 50,000, some above ten millions with cents or without, few of 15 digits, some 0, some null."""
    kind = kind % 1000
    cents = pl.select(
        pl.when(kind < NULLS_PER_THOUSAND).then(None)
        .when(kind < 30).then(pl.lit(0, pl.UInt64))
        .when(kind < 33).then(bits % 10**15)
        .when(kind < 80).then(bits % (9 * 10**10) + 10**9)
        .when(kind < 100).then((bits % (9 * 10**8) + 10**7) * 100)
        .otherwise(bits % 5_000_000)
    ).to_series()  # fmt: skip
    return (cents.cast(SCHEMA["Amount__c"]) / 100).cast(SCHEMA["Amount__c"])


def _dates(bits: pl.Series) -> pl.Series:
    """Days around the first night, and now and then one at the edge of what a date can be."""
    days = (bits // 2**9 % 1095).cast(pl.Int32) + (FIRST_DAY.date() - date(1970, 1, 1)).days - 365
    edge = pl.Series(EDGE_DATES).gather(bits // 2**9 % len(EDGE_DATES))
    return pl.select(pl.when(bits % 512 == 0).then(edge).otherwise(days.cast(pl.Date))).to_series()


def _accounts(formula: Formula, ids: pl.Series, bits: pl.Series) -> pl.Series:
    hot = bits // 2**40 % min(HOT_ACCOUNTS, formula.accounts)
    is_hot = bits // 2**44 % 1000 < round(formula.hot_parents * 1000)
    place = hot.zip_with(is_hot, bits % formula.accounts)
    return ids.gather(place).set(bits // 2**48 % 1000 < NULLS_PER_THOUSAND, None)


def _chosen(texts: tuple[str, ...], bits: pl.Series) -> pl.Series:
    return pl.Series(texts).gather(bits % len(texts))


def _bits(number: int) -> pl.Series:
    return pl.Series([number % UINT64], dtype=pl.UInt64)


def _mixed(number: int) -> int:
    """What ``Formula.draw`` does, to one number."""
    mixed = number * GOLDEN % UINT64
    for shift, factor in MIXING:
        mixed = (mixed ^ (mixed >> shift)) * factor % UINT64
    return mixed ^ (mixed >> 31)


# Records of the CRM


def _account_ids(formula: Formula) -> pl.Series:
    """Ids of the accounts. They depend on nothing else, so that seeding again means the same accounts."""
    return salesforce_ids("001", pl.int_range(1, formula.accounts + 1, dtype=pl.Int64, eager=True))


def _make_accounts(org: Org, formula: Formula, ids: pl.Series) -> None:
    free = org.reserve("001", 0)
    org.reserve("001", max(formula.accounts + 1 - free, 0))

    def pieces() -> Iterator[pl.DataFrame]:
        for start in range(0, formula.accounts, PIECE_ROWS):
            numbers = pl.int_range(start, min(start + PIECE_ROWS, formula.accounts), dtype=pl.Int64, eager=True)
            bits = formula.draw(numbers, "made")
            values = {
                "Id": ids.slice(start, PIECE_ROWS),
                "External_ID__c": "account" + (numbers + 1).cast(pl.String).str.zfill(9),
                "Name": _names(bits, numbers),
                "Industry": _chosen(INDUSTRIES, bits // 2**8),
            }
            yield _records(org, account, values)

    account = _object(org, "Account")
    Records(org, account).replace_all(pieces())


def _make_opportunities(org: Org, formula: Formula, ids: pl.Series, share: float) -> int:
    """The CRM's opportunities: a share of the rows, with the values that they had before."""
    opportunity = _object(org, "Opportunity")
    count = _count(share, formula.rows)
    places = []
    for start in range(0, formula.rows, PIECE_ROWS):
        numbers = pl.int_range(start, min(start + PIECE_ROWS, formula.rows), dtype=pl.Int64, eager=True)
        numbers = numbers.filter(_spread(formula, numbers, count=count, among=formula.rows, purpose="made"))
        matched = match_key(pl.col("key"), opportunity.key)
        places.append(pl.DataFrame({"number": numbers, "key": _keys(formula, numbers)}).select("number", matched))
    ordered = pl.concat(places).sort("key")["number"] if places else pl.Series([], dtype=pl.Int64)
    before = replace(formula, night=-1)

    def pieces() -> Iterator[pl.DataFrame]:
        first = org.reserve("006", count)
        for start in range(0, count, PIECE_ROWS):
            numbers = ordered.slice(start, PIECE_ROWS)
            rows = _changed(before, ids, _rows(formula, ids, numbers, _keys(formula, numbers)), numbers)
            given = pl.int_range(first + start, first + start + len(numbers), dtype=pl.Int64, eager=True)
            values = {
                "Id": salesforce_ids("006", given),
                "External_ID__c": rows["ExternalId__c"],
                "Name": rows["Name__c"].str.strip_chars(),
                "StageName": rows["StageName__c"],
                "CloseDate": rows["CloseDate__c"],
                "Amount": rows["Amount__c"].cast(pl.Float64),
                "AccountId": rows["Account__c"],
                "IsClosed": rows["StageName__c"].str.starts_with("Closed"),
                "IsWon": rows["StageName__c"] == "Closed Won",
            }
            yield _records(org, opportunity, values)

    Records(org, opportunity).replace_all(pieces())
    return count


def _records(org: Org, sobject: SObject, values: dict[str, pl.Series]) -> pl.DataFrame:
    """Whole records, made by the administrator a month ago."""
    made_at = datetime.fromtimestamp(org.now(), UTC).replace(microsecond=0) - timedelta(days=30)
    system = {
        "IsDeleted": False, "OwnerId": org.admin_id, "CreatedById": org.admin_id, "LastModifiedById": org.admin_id,
        "CreatedDate": made_at, "LastModifiedDate": made_at, "SystemModstamp": made_at,
    }  # fmt: skip
    frame = pl.DataFrame(values)
    columns = [
        (pl.col(name) if name in values else pl.lit(system.get(name))).cast(dtype).alias(name)
        for name, dtype in sobject.stored.items()
    ]
    return frame.select(match_key(pl.col("External_ID__c"), sobject.key).alias(KEY), *columns)


def _object(org: Org, name: str) -> SObject:
    found = find_object(org, name)
    if found is None:
        raise LookupError(f"the org has no object {name}")
    return found


# The formula, kept beside the rows


def _keep(org: Org, formula: Formula) -> None:
    org.schema(FORMULA_SCHEMA, "source")
    content = msgspec.json.encode(formula).decode()
    org.db("source").execute("INSERT OR REPLACE INTO formula VALUES (?, ?)", (SOURCE, content))


def _kept(org: Org) -> Formula:
    org.schema(FORMULA_SCHEMA, "source")
    row = org.db("source").execute("SELECT content FROM formula WHERE object = ?", (SOURCE,)).fetchone()
    if row is None:
        raise LookupError("the org was never seeded")
    return msgspec.json.decode(row[0], type=Formula)
