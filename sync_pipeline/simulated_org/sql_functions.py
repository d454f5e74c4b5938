"""What Hyper's functions are in DuckDB: those that mean the same, those that are written otherwise, those not offered.

A template's ``_1``, ``_2`` stand for the arguments. Names that begin with ``hyper_`` are macros of ``MACROS`` or functions
of ``register``; nobody can call them by that name, because only names of these tables are taken from a statement.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    format_type pg_get_expr array_length
    """.split()
)
"""Functions that are offered, whether as DuckDB has them or by a template or a rule of ``sql_meaning.py``."""

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

LETTERS: Final = r"\p{Lu}\p{Ll}\p{Lt}\x{AA}\x{BA}\x{2160}-\x{217F}\x{24B6}-\x{24E9}"
MARKS: Final = (
    r"\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}''.:\x{B7}\x{387}\x{55F}\x{5F4}\x{2018}\x{2019}\x{2024}\x{2027}"
    r"\x{FE13}\x{FE52}\x{FE55}\x{FF07}\x{FF0E}\x{FF1A}"
)
CASED: Final = f"[{LETTERS}]"
IGNORED: Final = f"[{MARKS}]"
OTHER: Final = f"[^{LETTERS}{MARKS}]"
"""Letters that have a case, marks that do not part them, and all else: what Unicode's rule of the final sigma asks for."""

MACROS: Final = (
    # Σ alone has a form that depends on its neighbours, and İ alone becomes two letters; all others are DuckDB's.
    f"hyper_lower(t) AS lower(replace(CASE WHEN contains(t, 'Σ') THEN regexp_replace(t, '({CASED}{IGNORED}*)Σ({IGNORED}*)"
    f"({OTHER}|$)', '\\1ς\\2\\3', 'g') ELSE t END, 'İ', 'i̇'))",
    "hyper_upper(t) AS CASE WHEN strlen(t) = length(t) THEN upper(t) ELSE hyper_raised(t) END",
    "hyper_reverse(t) AS array_to_string(list_reverse(regexp_extract_all(t, '(?s).')), '')",
    "hyper_chr(n) AS CASE WHEN n = 0 THEN error('[22021] the null (0) character is not permitted') ELSE chr(n) END",
    "hyper_ascii(t) AS CASE WHEN t = '' THEN 0 ELSE unicode(t) END",
    # Whole numbers only: DuckDB rounds '2.5'.
    "hyper_whole(t) AS CASE WHEN regexp_full_match(t, '\\s*[-+]?[0-9]+\\s*') THEN CAST(trim(t, ' ') AS HUGEINT) "
    "WHEN t IS NOT NULL THEN error('[22P02] invalid input syntax for integer') END",
    "hyper_day(t) AS CASE WHEN regexp_matches(t, '(?i)infinity|epoch|now|today') "
    "THEN error('[0A000] the simulated org does not offer this literal of a date') ELSE t END",
    "hyper_double_text(x) AS CASE WHEN isnan(x) THEN 'NaN' WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' "
    "ELSE '-Infinity' END ELSE format('{:.15g}', x) END",
    "hyper_float_text(x) AS CASE WHEN isnan(x) THEN 'NaN' WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' "
    "ELSE '-Infinity' END ELSE format('{:.6g}', CAST(x AS DOUBLE)) END",
    # A decimal without its point, the quotient of two whole numbers rounded half away from zero, and back.
    "hyper_digits(x) AS CAST(replace(CAST(x AS VARCHAR), '.', '') AS HUGEINT)",
    "hyper_quotient(a, b) AS CASE WHEN (a < 0) = (b < 0) THEN 1 ELSE -1 END * "
    "((2 * abs(a) + abs(b)) // (2 * abs(b)))",
    "hyper_padded(q, s) AS lpad(CAST(abs(q) AS VARCHAR), "
    "CAST(greatest(length(CAST(abs(q) AS VARCHAR)), s + 1) AS INTEGER), '0')",
    "hyper_point(q, s) AS CASE WHEN q < 0 THEN '-' ELSE '' END || left(hyper_padded(q, s), -s) || '.' || "
    "right(hyper_padded(q, s), s)",
    # An interval as ISO 8601 has it: P1Y2M3DT4H5M6.500000S.
    "hyper_part(n, unit) AS CASE WHEN n = 0 THEN '' ELSE CAST(n AS VARCHAR) || unit END",
    "hyper_seconds(us) AS CASE WHEN us = 0 THEN '' ELSE CASE WHEN us < 0 THEN '-' ELSE '' END || "
    "CAST(abs(us) // 1000000 AS VARCHAR) || CASE WHEN us % 1000000 = 0 THEN '' ELSE '.' || "
    "lpad(CAST(abs(us) % 1000000 AS VARCHAR), 6, '0') END || 'S' END",
    "hyper_clock(us) AS CASE WHEN us = 0 THEN '' ELSE 'T' || hyper_part(us // 3600000000, 'H') || "
    "hyper_part((us // 60000000) % 60, 'M') || hyper_seconds(us % 60000000) END",
    "hyper_interval(months, days, us) AS CASE WHEN months = 0 AND days = 0 AND us = 0 THEN 'PT0S' ELSE 'P' || "
    "hyper_part(months // 12, 'Y') || hyper_part(months % 12, 'M') || hyper_part(days, 'D') || hyper_clock(us) END",
    "hyper_format_type(t, m) AS CASE WHEN t = 1700 AND m >= 4 THEN 'numeric(' || ((m - 4) // 65536) || ',' || "
    "((m - 4) % 65536) || ')' ELSE CASE t WHEN 16 THEN 'boolean' WHEN 20 THEN 'bigint' WHEN 21 THEN 'smallint' "
    "WHEN 23 THEN 'integer' WHEN 25 THEN 'text' WHEN 700 THEN 'real' WHEN 701 THEN 'double precision' "
    "WHEN 1082 THEN 'date' WHEN 1083 THEN 'time without time zone' WHEN 1114 THEN 'timestamp without time zone' "
    "WHEN 1184 THEN 'timestamp with time zone' WHEN 1700 THEN 'numeric' ELSE '???' END END",
)


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes the macros known to an engine."""
    for macro in (*MACROS, _raised()):
        connection.execute(f"CREATE MACRO {macro}")


def _raised() -> str:
    """Upper case of a text with letters that become several ones, such as ß and ﬁ."""
    text = "t"
    for code in range(0x10000):
        raised = chr(code).upper()
        if len(raised) > 1:
            text = f"replace({text}, '{chr(code)}', '{raised}')"
            # A letter that only becomes several ones stays for the others to be raised.
    return f"hyper_raised(t) AS upper({text})"
