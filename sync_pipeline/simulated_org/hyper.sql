-- What Hyper does otherwise than DuckDB, as macros of DuckDB. No statement can name them: it would be refused.


-- Σ has a form of its own at the end of a word: behind a letter that has a case, marks aside, and before none. İ becomes two
-- letters. All others are DuckDB's.
CREATE MACRO hyper_lower(t) AS
    lower(replace(CASE WHEN contains(t, 'Σ') THEN regexp_replace(t,
    '([\p{Lu}\p{Ll}\p{Lt}\x{AA}\x{BA}\x{2160}-\x{217F}\x{24B6}-\x{24E9}][\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}''.:\x{B7}\x{387}\x{55F}\x{5F4}\x{2018}\x{2019}\x{2024}\x{2027}\x{FE13}\x{FE52}\x{FE55}\x{FF07}\x{FF0E}\x{FF1A}]*)Σ([\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}''.:\x{B7}\x{387}\x{55F}\x{5F4}\x{2018}\x{2019}\x{2024}\x{2027}\x{FE13}\x{FE52}\x{FE55}\x{FF07}\x{FF0E}\x{FF1A}]*)([^\p{Lu}\p{Ll}\p{Lt}\x{AA}\x{BA}\x{2160}-\x{217F}\x{24B6}-\x{24E9}\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}''.:\x{B7}\x{387}\x{55F}\x{5F4}\x{2018}\x{2019}\x{2024}\x{2027}\x{FE13}\x{FE52}\x{FE55}\x{FF07}\x{FF0E}\x{FF1A}]|$)',
    '\1ς\2\3', 'g') ELSE t END, 'İ', 'i̇'));
CREATE MACRO hyper_upper(t) AS
    CASE WHEN strlen(t) = length(t) THEN upper(t) ELSE hyper_raised(t) END;
CREATE MACRO hyper_reverse(t) AS
    array_to_string(list_reverse(regexp_extract_all(t, '(?s).')), '');
CREATE MACRO hyper_substring(t, start, size) AS
    CASE WHEN size < 0 THEN error('[22011] negative substring length') WHEN start >= 1 THEN substring(t, start, size)
    WHEN start + size > 1 THEN substring(t, 1, start + size - 1) WHEN start + size <= 1 AND t IS NOT NULL THEN '' END;
CREATE MACRO hyper_pattern(p) AS
    CASE WHEN regexp_full_match(p, '(?s)([^\\]|\\.)*\\')
    THEN error('[42601] LIKE pattern must not end with an unescaped escape character') ELSE p END;
CREATE MACRO hyper_chr(n) AS
    CASE WHEN n = 0 THEN error('[22021] the null (0) character is not permitted') ELSE chr(n) END;
CREATE MACRO hyper_ascii(t) AS
    CASE WHEN t = '' THEN 0 ELSE unicode(t) END;

-- Whole numbers only: DuckDB rounds '2.5'.
CREATE MACRO hyper_whole(t) AS
    CASE WHEN regexp_full_match(t, '\s*[-+]?[0-9]+\s*') THEN CAST(trim(t, ' ') AS HUGEINT) WHEN t IS NOT NULL THEN
    error('[22P02] invalid input syntax for integer') END;
CREATE MACRO hyper_day(t) AS
    CASE WHEN regexp_matches(t, '(?i)infinity|epoch|now|today|bc|^\s*[-+]|^\s*0000')
    THEN error('[0A000] the simulated org does not offer this literal of a date') ELSE t END;

-- A double as text has fifteen digits, a real six.
CREATE MACRO hyper_double_text(x) AS
    CASE WHEN isnan(x) THEN 'NaN' WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' ELSE '-Infinity' END ELSE
    format('{:.15g}', x) END;
CREATE MACRO hyper_float_text(x) AS
    CASE WHEN isnan(x) THEN 'NaN' WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' ELSE '-Infinity' END ELSE
    format('{:.6g}', CAST(x AS DOUBLE)) END;

-- A decimal without its point, the quotient of two whole numbers rounded half away from zero, and back.
CREATE MACRO hyper_digits(x) AS
    CAST(replace(CAST(x AS VARCHAR), '.', '') AS HUGEINT);
CREATE MACRO hyper_quotient(a, b) AS
    CASE WHEN (a < 0) = (b < 0) THEN 1 ELSE -1 END * ((2 * abs(a) + abs(b)) // (2 * abs(b)));
CREATE MACRO hyper_padded(q, s) AS
    lpad(CAST(abs(q) AS VARCHAR), CAST(greatest(length(CAST(abs(q) AS VARCHAR)), s + 1) AS INTEGER), '0');
CREATE MACRO hyper_point(q, s) AS
    CASE WHEN q < 0 THEN '-' ELSE '' END || left(hyper_padded(q, s), -s) || '.' || right(hyper_padded(q, s), s);

-- An interval as ISO 8601 has it: P1Y2M3DT4H5M6.500000S.
CREATE MACRO hyper_part(n, unit) AS
    CASE WHEN n = 0 THEN '' ELSE CAST(n AS VARCHAR) || unit END;
CREATE MACRO hyper_seconds(us) AS
    CASE WHEN us = 0 THEN '' ELSE CASE WHEN us < 0 THEN '-' ELSE '' END || CAST(abs(us) // 1000000 AS VARCHAR) ||
    CASE WHEN us % 1000000 = 0 THEN '' ELSE '.' || lpad(CAST(abs(us) % 1000000 AS VARCHAR), 6, '0') END || 'S' END;
CREATE MACRO hyper_clock(us) AS
    CASE WHEN us = 0 THEN '' ELSE 'T' || hyper_part(us // 3600000000, 'H') || hyper_part((us // 60000000) % 60,
    'M') || hyper_seconds(us % 60000000) END;
CREATE MACRO hyper_interval(months, days, us) AS
    CASE WHEN months = 0 AND days = 0 AND us = 0 THEN 'PT0S' ELSE 'P' || hyper_part(months // 12, 'Y') ||
    hyper_part(months % 12, 'M') || hyper_part(days, 'D') || hyper_clock(us) END;

-- Types of the catalogue by their numbers.
CREATE MACRO hyper_format_type(t, m) AS
    CASE WHEN t = 1700 AND m >= 4 THEN 'numeric(' || ((m - 4) // 65536) || ',' || ((m - 4) % 65536) || ')' ELSE
    CASE t WHEN 16 THEN 'boolean' WHEN 20 THEN 'bigint' WHEN 21 THEN 'smallint' WHEN 23 THEN 'integer' WHEN 25
    THEN 'text' WHEN 700 THEN 'real' WHEN 701 THEN 'double precision' WHEN 1082 THEN 'date' WHEN 1083 THEN 'time
    without time zone' WHEN 1114 THEN 'timestamp without time zone' WHEN 1184 THEN 'timestamp with time zone' WHEN
    1700 THEN 'numeric' ELSE '???' END END;
