"""What Hyper's functions are in DuckDB: those that mean the same, those that are written otherwise, those not offered.

A template's ``_1``, ``_2`` stand for the arguments. Names that begin with ``hyper_`` are macros of ``hyper.sql``;
nobody can call them by that name, because only names of these tables are taken from a statement.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import duckdb

SAME: Final = frozenset(
    """
    abs acos any_value approx_count_distinct array_agg asin atan atan2 bool_and bool_or cbrt concat_ws
    corr cos cot count covar_pop covar_samp cume_dist degrees dense_rank every exp
    first_value ntile hyper_date_part lag last_value lead left ln lower lpad ltrim max md5 min mod now nth_value
    percent_rank pi power pow radians random rank replace repeat right row_number rpad rtrim sin split_part
    sqrt starts_with string_agg sum avg stddev stddev_pop stddev_samp var_pop var_samp variance median
    substring substr tan trim upper + - * / % ^ || ~~ !~~ ~~* !~~* count_star like_escape not_like_escape
    ilike_escape not_ilike_escape concat round floor ceil ceiling trunc coalesce nvl ifnull date_trunc
    format_type pg_get_expr array_length timezone
    """.split()
)
"""Functions that are offered, whether as DuckDB has them or by a template or a rule of ``sql_meaning.py``."""

SUBSTRING: Final = "substring(_1, CASE WHEN _2 < 1 THEN 1 ELSE _2 END)"
SUBSTRING_OF: Final = "hyper_substring(_1, _2, _3)"
"""Places before the first letter count, and are empty."""

TEMPLATES: Final[Mapping[tuple[str, int], str]] = {
    ("lpad", 2): "lpad(_1, _2, ' ')",
    ("rpad", 2): "rpad(_1, _2, ' ')",
    ("lower", 1): "hyper_lower(_1)",
    ("upper", 1): "hyper_upper(_1)",
    ("trim", 1): "trim(_1, ' ')",
    ("btrim", 1): "trim(_1, ' ')",
    ("btrim", 2): "trim(_1, _2)",
    ("ltrim", 1): "ltrim(_1, ' ')",
    ("rtrim", 1): "rtrim(_1, ' ')",
    ("substring", 2): SUBSTRING,
    ("substr", 2): SUBSTRING,
    ("substring", 3): SUBSTRING_OF,
    ("substr", 3): SUBSTRING_OF,
    ("reverse", 1): "hyper_reverse(_1)",
    ("chr", 1): "hyper_chr(_1)",
    ("ascii", 1): "CAST(hyper_ascii(_1) AS INTEGER)",
    ("length", 1): "CAST(length(_1) AS INTEGER)",
    ("char_length", 1): "CAST(length(_1) AS INTEGER)",
    ("octet_length", 1): "CAST(strlen(_1) AS INTEGER)",
    ("bit_length", 1): "CAST(8 * strlen(_1) AS INTEGER)",
    ("position", 2): "CAST(instr(_1, _2) AS INTEGER)",
    ("strpos", 2): "CAST(instr(_1, _2) AS INTEGER)",
    ("array_length", 1): "CAST(len(_1) AS INTEGER)",
    ("nvl", 2): "coalesce(_1, _2)",
    ("ifnull", 2): "coalesce(_1, _2)",
    ("hyper_date_part", 2): "CAST(date_part(_1, _2) AS DOUBLE)",
    ("year", 1): "CAST(year(_1) AS INTEGER)",
    ("month", 1): "CAST(month(_1) AS INTEGER)",
    ("day", 1): "CAST(day(_1) AS INTEGER)",
    ("quarter", 1): "CAST(quarter(_1) AS INTEGER)",
    ("hour", 1): "CAST(hour(_1) AS INTEGER)",
    ("minute", 1): "CAST(minute(_1) AS INTEGER)",
}
EXTRACTS: Final[Mapping[str, str]] = {
    "second": "CAST(date_part('microseconds', _1) % 60000000 / 1000000 AS DECIMAL(8, 6))",
    "epoch": "CAST(epoch(_1) AS DECIMAL(18, 6))",
} | {
    part: f"CAST(date_part('{part}', _1) AS INTEGER)"
    for part in "year month day hour minute week quarter doy dow isodow isoyear century decade millennium".split()
}  # fmt: skip
"""``extract(… FROM x)``, by its part."""

TEXTS: Final = frozenset(
    "lower upper trim btrim ltrim rtrim reverse ascii length char_length octet_length bit_length "
    "position strpos substring substr left right replace repeat lpad rpad split_part starts_with md5".split()
)
"""Functions whose first argument is a text."""

NOT_OFFERED: Final = frozenset(
    """
    age array_append array_cat array_contains array_distinct array_filter array_position array_prepend array_slice
    array_sort array_to_string array_transform bit_and bit_or col_description contains convert_from convert_to
    current_database current_query current_schema current_schemas current_setting date_add datediff dayname dayofweek
    decode div encode ends_with external factorial generate_series get_bit has_database_privilege has_function_privilege
    has_schema_privilege has_table_privilege iff initcap json_array_length json_each justify_days justify_hours kurtosis listagg
    log make_date make_time make_timestamp monthname obj_description pg_conf_load_time pg_function_is_visible
    pg_get_constraintdef pg_get_viewdef pg_is_other_temp_schema pg_my_temp_schema pg_postmaster_start_time pg_sleep
    pg_table_is_visible pg_typeof quote_ident quote_literal regexp_count regexp_like regexp_matches regexp_replace
    regexp_split_to_array regexp_substr result_scan second set_bit sha256 shobj_description sign split string_to_array
    to_base64 to_char to_date to_hex to_timestamp unnest uuidv4 uuidv7 version week width_bucket zeroifnull
    percentile_disc percentile_cont mode overlay ~ ~* !~ !~*
    """.split()
)
"""Functions that Hyper has and the simulated org does not."""

CAST_TYPES: Final[Mapping[str, str]] = {
    "boolean": "BOOLEAN", "bool": "BOOLEAN", "smallint": "SMALLINT", "int2": "SMALLINT", "integer": "INTEGER",
    "int": "INTEGER", "int4": "INTEGER", "bigint": "BIGINT", "int8": "BIGINT", "oid": "BIGINT",
    "double precision": "DOUBLE", "float8": "DOUBLE", "float": "DOUBLE", "real": "FLOAT", "float4": "FLOAT",
    "numeric": "DECIMAL", "decimal": "DECIMAL", "dec": "DECIMAL", "text": "VARCHAR", "varchar": "VARCHAR",
    "name": "VARCHAR", "char": "CHAR", "bpchar": "CHAR", "date": "DATE", "time": "TIME", "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE", "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
    "interval": "INTERVAL", "double": "DOUBLE",
}  # fmt: skip
"""Types of casts, as DuckDB's grammar names them."""

KEEPING: Final = frozenset("trim ltrim rtrim btrim left right substring substr coalesce".split())
"""Functions whose text has no letter that their arguments have not."""
LOWERED_OTHERWISE: Final = ("Σ", "İ")
"""The first has a form that depends on its neighbours, the second becomes two letters; all others are DuckDB's."""


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes the macros known to an engine."""
    connection.execute(files(__package__).joinpath("hyper.sql").read_text(encoding="utf-8"))
    connection.execute(f"CREATE MACRO {_raised()}")


def _raised() -> str:
    """Upper case of a text with letters that become several ones, such as ß and ﬁ."""
    text = "t"
    for code in range(0x10000):
        raised = chr(code).upper()
        if len(raised) > 1:
            text = f"replace({text}, '{chr(code)}', '{raised}')"
            # A letter that only becomes several ones stays for the others to be raised.
    return f"hyper_raised(t) AS upper({text})"
