"""The SQL of the simulated org beside that of the real engine: names, types, values and refusals.

A statement of ``EQUAL`` is answered alike to the last digit, one of ``REFUSED`` refused by both with one SQLSTATE. What the
simulated org does not offer it says (``NOT_OFFERED``); it never answers otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipeline.simulated_org.app import OrgTransport
from sync_pipeline.simulated_org.login import new_token
from sync_pipeline.simulated_org.sql_words import KEYWORDS
from sync_pipeline_tests.contract.hyper import Hyper, Number, SqlError

ONE = "FROM (VALUES (1), (2), (2)) t(x)"
TEXT = "FROM (VALUES ('1')) t(x)"

EQUAL = (
    # Numbers
    "SELECT 7/2, -7/2, 7e0/2, CAST(1 AS numeric(18,2))/3, CAST(1 AS numeric(18,2))/CAST(3 AS numeric(5,1))",
    "SELECT CAST(1 AS numeric(18,2))*CAST(3 AS numeric(5,1)), CAST(1 AS numeric(18,2))+1, 1.5, 1.50*2, 100000000000",
    "SELECT CAST(10 AS numeric(38,18))/3, 10/3.0, 1.0/3, 2.0/3, -2.0/3, 1.00000/3, CAST(1 AS numeric(18,2))/2e0",
    "SELECT CAST(1 AS numeric(18,2))/CAST(3 AS bigint), CAST(2 AS numeric(18,10))/CAST(3 AS numeric(18,5))",
    "SELECT CAST(1 AS numeric(18,2)) - CAST(2 AS bigint), 1e0/0, -1e0/0, 0e0/0",
    "SELECT 5 % 3, -5 % 3, mod(5,3), power(2,3), sqrt(4), round(2.5), round(2.345,2), floor(2.5), ceil(2.5), trunc(2.5)",
    "SELECT round(2.5e0), round(-2.5e0), round(3.5e0), abs(-2.5), 2^3",
    "SELECT CAST(2.5 AS int), CAST(3.5 AS int), CAST(-2.5 AS int), CAST(2.5e0 AS int), CAST(' 2 ' AS int), CAST(true AS int)",
    "SELECT CAST('12.345' AS numeric(4,2)), CAST(12.335 AS numeric(4,2)), CAST(12.355e0 AS numeric(4,2))",
    "SELECT CAST('1e2' AS numeric(5,2)), CAST(' 1.50 ' AS numeric(5,2)), CAST('1e2' AS double precision)",
    # Aggregates and windows
    f"SELECT avg(x), sum(x), avg(CAST(x AS numeric(18,2))), sum(CAST(x AS numeric(18,2))), avg(CAST(x AS bigint)) {ONE}",
    f"SELECT sum(CAST(x AS bigint)), sum(CAST(x AS smallint)), sum(CAST(x AS real)), avg(CAST(x AS double precision)) {ONE}",
    f"SELECT avg(CAST(x AS numeric(38,18))), avg(CAST(x AS numeric(10,8))), avg(CAST(x AS real)), avg(CAST(x AS smallint)) {ONE}",
    f"SELECT stddev(x), variance(x), stddev_pop(x), var_samp(x), var_pop(x), median(x), min(x), max(x), count(x) {ONE}",
    f"SELECT avg(DISTINCT x), sum(DISTINCT x), avg(x) FILTER (WHERE x > 1), sum(x) FILTER (WHERE x > 5), count(*) {ONE}",
    f"SELECT avg(x) OVER (ORDER BY x), sum(x) OVER (ORDER BY x), ntile(2) OVER (ORDER BY x), count(*) OVER () {ONE} ORDER BY x",
    f"SELECT x, sum(x) / count(*), avg(x) + 1 {ONE} GROUP BY x ORDER BY x",
    f"SELECT count(DISTINCT x), approx_count_distinct(x), array_agg(x) {ONE}",
    # Doubles
    "SELECT 1e0, 1e7, 1e-7, 1.5e0, 1e15, 1e17, 0.1e0, 123456789.123456789e0, 1e-4, 1e-5, 1e300, -0e0, 5e-324, 0.1e0+0.2e0",
    "SELECT CAST(1e7 AS text), CAST(1e-7 AS text), CAST(1e15 AS text), CAST(123456789.123456789e0 AS text), 'a' || 1e0",
    "SELECT CAST('NaN' AS double precision), CAST(CAST('Infinity' AS double precision) AS text), CAST('-Infinity' AS double precision)",
    "SELECT CAST(1.1 AS real), CAST(1e10 AS real), CAST(16777217 AS real), CAST(CAST(16777217 AS real) AS text)",
    # Instants
    "SELECT CAST(timestamptz '2024-02-29 22:00:00.5+02' AT TIME ZONE 'UTC' AS text), timestamp '2024-02-29 10:00:00' AT TIME ZONE 'utc'",
    "SELECT CAST(timestamptz '2024-02-29 01:00:00+02' AT TIME ZONE 'UTC' AS date), CAST(NULL AS timestamptz) AT TIME ZONE 'UTC'",
    # Texts
    "SELECT lower('İ'), lower('ΑΣ'), lower('ΑΣ Α'), lower('Σ'), lower('ΑΣ.'), lower('ẞ'), lower('ǅ')",  # noqa: RUF001
    "SELECT upper('ß'), upper('ﬁ'), upper('ŉ'), upper('ÿ'), upper('ǰΐ'), upper('ǆ'), upper('և'), upper('aé')",
    "SELECT '['||trim(U&'\\00a0\\3000 a \\3000\\00a0')||']', '['||btrim(chr(9)||' a ')||']', '['||ltrim(' a')||']', rtrim('axx','x')",
    "SELECT trim(both chr(9) from chr(9)||'a'), lpad('a',3,'xy'), rpad('a',3,'xy'), lpad('abc',2), split_part('a,b,c',',',2)",
    "SELECT reverse(U&'e\\0301a'), reverse('👨‍👩'), left('abc',-1), right('abc',2), repeat('ab',2), replace('aba','a','x')",
    "SELECT substring('abc', 2), substr('abc',2,1), substring('abc',0), substring('abc',-1,3), substring('abc' from 2 for 1)",
    "SELECT 'a%b' LIKE 'a\\%b', 'axb' LIKE 'a\\%b', 'a\\b' LIKE 'a\\\\b', 'a_b' LIKE 'a!_b' ESCAPE '!', 'ab' NOT LIKE 'a\\_'",
    "SELECT length('abc'), char_length('é'), octet_length('é'), bit_length('a'), ascii('é'), ascii(''), strpos('abc','b'), position('' in 'a')",
    "SELECT chr(65), chr(128512), concat(1,'a',null,2.5e0), concat_ws(',','a',null,'b'), starts_with('abc','ab'), md5('a')",
    "SELECT CAST('abcdef' AS varchar(3)), CAST('ab' AS char(4)), CAST('abcdef' AS char(3)), CAST('ab' AS char), length(CAST('ab' AS char(4)))",
    "SELECT CAST('ab' AS char(4)) = 'ab  ', CAST('a ' AS text) = CAST('a' AS char(3)), 'a ' = CAST('a' AS varchar(3)), CAST('ab' AS char(4))||'|'",
    "SELECT e'a\\nb', $$a$$, U&'d!0061' UESCAPE '!', U&'\\+01F600', 'it''s', chr(1) || chr(31)",
    "SELECT 'a' || 1, 1 || 'a', 'a' || 2.50, 'a' || date '2020-01-01', 'a' || true, null || 'a'",
    "SELECT 'a' < 'B', 'a' = 'A', 'é' < 'z', 'a' < 'a '",
    # Moments
    "SELECT timestamp '2020-01-02 03:04:05.5', timestamp '2020-01-02 03:04:05', timestamptz '2020-01-02 03:04:05.500100+02'",
    "SELECT time '01:02:03.5', time '01:02:03', date '0001-01-01', date '9999-12-31', date '10000-01-01'",
    "SELECT interval '1' day, interval '14 months 3 days 1 hour 2.5 seconds', timestamp '2020-01-02' - timestamp '2020-01-01'",
    "SELECT CAST(timestamp '2020-01-02 03:04:05.5' AS text), CAST(timestamptz '2020-01-02 03:04:05.5+02' AS text), CAST(interval '1 day' AS text)",
    "SELECT date '2020-01-02' - date '2020-01-01', date '2020-01-01' + 1, date '2020-01-01' + interval '1' day, date_trunc('month', date '2020-01-15')",
    "SELECT extract(year from date '2020-01-05'), extract(dow from date '2020-01-05'), extract(week from date '2020-01-05'), date_part('year', date '2020-01-01')",
    "SELECT extract(second from timestamp '2020-01-01 01:02:03.5'), extract(epoch from timestamp '2020-01-01 01:02:03.5'), year(date '2020-01-05')",
    "SELECT CAST(date '2020-01-01' AS timestamptz), CAST(timestamptz '2020-01-01 23:00:00-05' AS date), CAST('2020-01-02' AS timestamp)",
    # Comparisons
    "SELECT '1' = 1, 1 = 1.0, 1e0 = 1, null = 1, date '2020-01-01' = '2020-01-01', date '2020-01-01' < timestamp '2020-01-01 00:00:01'",
    f"SELECT x {ONE} WHERE x = '1'",
    # Arrays
    "SELECT array[1,2], array['a',null], array[1.5, 2.5], array[date '2020-01-01'], array[1e0], (array[1,2])[2]",
    # Names
    "SELECT count(*), lower('A'), 1+1, 'x' AS X, 1 AS \"Y\", (SELECT 1), CASE WHEN true THEN 1 END, CAST(1 AS bigint), 1::text, -1",
    "SELECT 'a'||'b', true, null, date '2020-01-01', abs(-1), NOT true, 1 IN (1,2), EXISTS(SELECT 1), sum(1) OVER (), trim(' a')",
    f'SELECT x, X, "x", t.x AS Foo, * {ONE} ORDER BY 1',
    "SELECT 1 AS a, 2 AS a",
    "SELECT * FROM (SELECT 1+1, lower('A'), 'x') t",
    "WITH q AS (SELECT 1+1) SELECT * FROM q",
    "VALUES (1, 'a')",
    "SELECT * FROM (VALUES (1, 'a')) t",
    "SELECT 1 UNION ALL SELECT 2.5 ORDER BY 1",
    f"SELECT x AS a {ONE} GROUP BY a ORDER BY a",
    f"SELECT DISTINCT ON (x) x {ONE} ORDER BY x",
    f"SELECT x {ONE} ORDER BY x OFFSET 1 ROW FETCH FIRST 1 ROW ONLY",
    "SELECT a.x FROM (VALUES (1)) a(x) WHERE a.x IN (SELECT 1) AND EXISTS (SELECT 1 WHERE a.x = 1)",
    "SELECT a.x, b.x FROM (VALUES (1)) a(x) LEFT JOIN (VALUES (2)) b(x) ON a.x = b.x",
)

REFUSED = {
    "SELECT 1/0": "22012",
    "SELECT 5 % 0": "22012",
    "SELECT 1.0/0": "22012",
    "SELECT CAST('2.5' AS int)": "22P02",
    "SELECT CAST('' AS int)": "22P02",
    "SELECT CAST('x' AS date)": "22P02",
    "SELECT CAST('2024-02-30' AS date)": "22P02",
    "SELECT CAST(99999999999 AS int)": "22003",
    "SELECT CAST('99999999999' AS int)": "22003",
    "SELECT CAST(12345 AS numeric(4,2))": "22003",
    "SELECT CAST('12345' AS numeric(4,2))": "22003",
    "SELECT CAST(1e30 AS bigint)": "22003",
    "SELECT 2147483647 + 1": "22003",
    "SELECT 9223372036854775808": "42601",
    "SELECT chr(0)": "22021",
    "SELECT 'a' = 1": "42601",
    f"SELECT x = 1 {TEXT}": "42601",
    f"SELECT x IN (1, 2) {TEXT}": "42601",
    f"SELECT x BETWEEN 1 AND 2 {TEXT}": "42601",
    f"SELECT x = date '2020-01-01' {TEXT}": "42601",
    "SELECT true = 1": "42601",
    f"SELECT x + 1 {TEXT}": "42601",
    "SELECT 1 || 2": "42601",
    "SELECT lower(1)": "42601",
    f"SELECT x LIKE '1' {ONE}": "42601",
    f"SELECT sum(x) {TEXT}": "42601",
    "SELECT 1 UNION SELECT 'a'": "42601",
    "SELECT (1,2) > (1,1)": "0A000",
    "SELECT row(1,2)": "0A000",
    "SELECT count(DISTINCT (x,y)) FROM (VALUES (1,2)) t(x,y)": "0A000",
    "SELECT array[array[1]]": "0A000",
    "SELECT hash('a')": "42883",
    "SELECT duckdb_settings()": "42883",
    "SELECT to_days(1)": "42883",
    "SELECT hyper_lower('A')": "42883",
    "SELECT list_sum(array[1])": "42883",
    "SELECT * FROM duckdb_settings()": "42601",
    "SELECT * FROM read_csv('/etc/passwd')": "42601",
    "SELECT * FROM information_schema.tables": "42P01",
    "SELECT * FROM sqlite_master": "42P01",
    'SELECT * FROM "Nowhere"."x"': "3F000",
    "SELECT CAST(1 AS tinyint)": "42704",
    "SELECT CAST(1 AS hugeint)": "42704",
    "SELECT CAST(1 AS numeric(39,2))": "42601",
    "SELECT CAST('a' AS char(0))": "42601",
    "SELECT 1 AS a, a + 1": "42703",
    f"SELECT x AS a {ONE} WHERE a = 1": "42703",
    f"SELECT x AS a {ONE} GROUP BY 1 HAVING a = 1": "42703",
    f"SELECT x, row_number() OVER () AS r {ONE} QUALIFY r = 1": "42601",
    f"SELECT x, count(*) {ONE}": "42601",
    "FROM (VALUES (1)) t(x)": "42601",
    "SELECT {'a': 1}": "42601",
    "SELECT [1,2]": "42601",
    "SELECT 7 // 2": "42601",
    "SELECT 2 ** 3": "42601",
    "SELECT x FROM (VALUES (1)) t(x) LIMIT 10 PERCENT": "42601",
    "SELECT a.x FROM (VALUES (1)) a(x) SEMI JOIN (VALUES (1)) b(x) ON true": "42601",
    "SELECT (SELECT x FROM (VALUES (1),(2)) t(x))": "21000",
    "SELECT 1; SELECT 2": "42601",
    "SELECT 1 WHERE 1": "42601",
    "SELECT 'a' LIKE 'a\\'": "42601",
}

NOT_OFFERED = (
    "EXPLAIN SELECT 1",
    "SELECT initcap('abc')",
    "SELECT to_char(date '2020-01-02', 'YYYY')",
    "SELECT 'ab' ~ 'a.'",
    "SELECT overlay('abc' placing 'x' from 1 for 1)",
    "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY x) FROM (VALUES (1)) t(x)",
    "SELECT TRY_CAST('x' AS int)",
    "SELECT x, count(*) FROM (VALUES (1)) t(x) GROUP BY ALL",
    "SELECT * FROM generate_series(1,3) g",
    "SELECT CAST(10 AS numeric(38,18)) * CAST(3 AS numeric(38,18))",
    "SELECT timestamp '2020-01-01 00:00:00' AT TIME ZONE 'Europe/Berlin'",
    "SELECT CAST('infinity' AS date)",
    "SELECT 5.5 % 2",
    "SELECT 'a' COLLATE \"en_US\"",
)

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
LETTERS = st.text(st.sampled_from("aAσΣςİiıIßẞﬁéÉ e\u0301.'ʰ:Ⅷⓐ \u00ad-_1"), max_size=8)  # noqa: RUF001
Answer = tuple[list[tuple[Any, ...]], list[list[Any]]]
Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks the simulated org by its V3 door: columns by name, type and digits, and rows. Raises ``SqlError``."""
    transport = OrgTransport(tmp_path_factory.mktemp("org"))
    token = new_token(transport.org, kind="tenant", client="simulated", user_id=transport.org.user_id)
    with httpx.Client(
        transport=transport, base_url="https://embedded.invalid", headers={"Authorization": f"Bearer {token}"}
    ) as client:

        def ask(sql: str, parameters: Sequence[dict[str, Any]] = (), *, style: str = "NAMED", **more: Any) -> Answer:
            body = {"sql": sql, "paramStyle": style, "parameters": list(parameters), **more}
            answer = client.post("/api/v3/query", json=body)
            if answer.status_code != 200:
                told = answer.json()
                raise SqlError(told["message"], sqlstate=told["error"], code=str(answer.status_code))
            found = json.loads(answer.text, parse_int=Number, parse_float=Number)
            columns = json.loads(answer.text)["metadata"]["columns"]
            return [described(column) for column in columns], found["data"]

        yield ask


@pytest.fixture(scope="module")
def theirs(hyper: Hyper) -> Ask:
    """Asks the real engine."""

    def ask(sql: str, parameters: Sequence[dict[str, Any]] = (), *, style: Any = "NAMED") -> Answer:
        found = hyper.query(sql, parameters, style=style)
        return [described(column) for column in found.columns], found.rows

    return ask


def described(column: dict[str, Any]) -> tuple[Any, ...]:
    return column["name"], column["type"], column.get("precision"), column.get("scale")


def refusal(ask: Ask, sql: str, *arguments: Any, **more: Any) -> str:
    with pytest.raises(SqlError) as refused:
        ask(sql, *arguments, **more)
    return refused.value.sqlstate


@pytest.mark.parametrize("sql", EQUAL)
def test_a_statement_is_answered_as_the_engine_answers_it(ours: Ask, theirs: Ask, sql: str) -> None:
    assert ours(sql) == theirs(sql)


@pytest.mark.parametrize("sql", REFUSED)
def test_a_statement_is_refused_as_the_engine_refuses_it(ours: Ask, theirs: Ask, sql: str) -> None:
    assert (refusal(ours, sql), refusal(theirs, sql)) == (REFUSED[sql], REFUSED[sql])


@pytest.mark.parametrize("sql", NOT_OFFERED)
def test_what_is_not_offered_is_refused_and_never_answered_otherwise(ours: Ask, sql: str) -> None:
    assert refusal(ours, sql) == "0A000"


# Parameters


def test_a_keyword_is_no_name_of_a_parameter(ours: Ask, theirs: Ask) -> None:
    for word in sorted(KEYWORDS):
        given_one = [{"name": word, "type": "varchar", "value": "x"}]
        assert (refusal(ours, f"SELECT :{word}", given_one), refusal(theirs, f"SELECT :{word}", given_one)) == (
            "42601",
            "42601",
        ), word


@pytest.mark.parametrize("name", ["k0", "p", "n", "id", "date", "lo", "hi", "from_key", "state", "after0", "through1"])
def test_other_words_are(ours: Ask, theirs: Ask, name: str) -> None:
    given_one = [{"name": name, "type": "varchar", "value": "x"}]

    assert ours(f"SELECT :{name}", given_one) == theirs(f"SELECT :{name}", given_one)


PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("SELECT :p", {"type": "varchar", "value": None}),
    ("SELECT :P", {"type": "varchar", "value": "v"}),
    ("SELECT :p", {"type": "numeric", "precision": 5, "scale": 1, "value": "1.5"}),
    ("SELECT :p + 1", {"type": "bigint", "value": "1"}),
    ("SELECT :p", {"type": "integer", "value": None}),
    ("SELECT :p", {"type": "date", "value": "2020-01-02"}),
    ("SELECT :p", {"type": "timestamptz", "value": "2020-01-02 00:00:00"}),
    ("SELECT :p", {"type": "double", "value": "1"}),
    ("SELECT :p", {"type": "bool", "value": "true"}),
    ("SELECT x = :p FROM (VALUES (1)) t(x)", {"type": "varchar", "value": "1"}),
    ("SELECT 1 LIMIT :p", {"type": "bigint", "value": "1"}),
]


@pytest.mark.parametrize(("sql", "parameter"), PARAMETERS)
def test_a_parameter_means_the_same(ours: Ask, theirs: Ask, sql: str, parameter: dict[str, Any]) -> None:
    named = [{"name": "p", **parameter}]

    assert ours(sql, named) == theirs(sql, named)


WRONG_PARAMETERS: list[tuple[str, dict[str, Any], str]] = [
    ("SELECT :q", {"type": "varchar", "value": "v"}, "42601"),
    ("SELECT :p", {"type": "numeric", "value": "1.5"}, "22023"),
    ("SELECT :p", {"type": "frob", "value": "1"}, "22023"),
    ("SELECT :p", {"type": "integer", "value": "1.5"}, "22P02"),
    ("SELECT :p, $1", {"type": "varchar", "value": "v"}, "42601"),
    ("SELECT :p, ?", {"type": "varchar", "value": "v"}, "42601"),
    ("SELECT x = :p FROM (VALUES ('1')) t(x)", {"type": "integer", "value": "1"}, "42601"),
]


@pytest.mark.parametrize(("sql", "parameter", "state"), WRONG_PARAMETERS)
def test_a_parameter_is_refused_alike(ours: Ask, theirs: Ask, sql: str, parameter: dict[str, Any], state: str) -> None:
    named = [{"name": "p", **parameter}]

    assert (refusal(ours, sql, named), refusal(theirs, sql, named)) == (state, state)


@pytest.mark.parametrize(
    ("style", "sql"), [("QUESTION_MARK", "SELECT :p"), ("NAMED", "SELECT ?"), ("NAMED", "SELECT $1")]
)
def test_parameters_are_written_in_the_style_that_was_told(ours: Ask, theirs: Ask, style: str, sql: str) -> None:
    one = [{"type": "varchar", "value": "v"} | ({"name": "p"} if style == "NAMED" else {})]

    assert (refusal(ours, sql, one, style=style), refusal(theirs, sql, one, style=style)) == ("42601", "42601")


# Values


def as_parameters(values: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """A table of one column of texts, and its parameters."""
    rows = ", ".join(f"({n}, :k{n})" for n in range(len(values)))
    named = [{"name": f"k{n}", "type": "varchar", "value": value} for n, value in enumerate(values)]
    return f"FROM (VALUES {rows}) t(n, s) ORDER BY n", named


SAME_ENGINE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@SAME_ENGINE
@given(st.lists(TEXTS | LETTERS, min_size=1, max_size=30))
def test_texts_are_changed_alike(ours: Ask, theirs: Ask, values: list[str]) -> None:
    table, named = as_parameters(values)
    sql = f"SELECT lower(s), upper(s), trim(s), btrim(s, ' .'), reverse(s), length(s), octet_length(s), s < 'é', left(s, 2) {table}"

    assert ours(sql, named) == theirs(sql, named)


def test_every_letter_is_lowered_and_raised_alike(ours: Ask, theirs: Ask) -> None:
    letters = [chr(code) for code in range(1, 0x1_2000) if not 0xD800 <= code < 0xE000 and chr(code).isalpha()]
    changing = [letter for letter in letters if letter.lower() != letter or letter.upper() != letter]
    for start in range(0, len(changing), 500):
        table, named = as_parameters(changing[start : start + 500])
        sql = f"SELECT s, lower(s), upper(s) {table}"
        assert ours(sql, named) == theirs(sql, named)


@SAME_ENGINE
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_doubles_are_written_alike(ours: Ask, theirs: Ask, values: list[float]) -> None:
    table, named = as_parameters([repr(value) for value in values])
    sql = f"SELECT d, CAST(d AS text) FROM (SELECT n, CAST(s AS double precision) AS d {table.split(' ORDER')[0]}) u ORDER BY n"

    assert ours(sql, named) == theirs(sql, named)


@SAME_ENGINE
@given(
    st.decimals(-(10**9), 10**9, places=2),
    st.decimals(-(10**6), 10**6, places=3).filter(lambda value: value != 0),
)
def test_numerics_are_divided_alike(ours: Ask, theirs: Ask, left: Decimal, right: Decimal) -> None:
    sql = f"SELECT CAST('{left}' AS numeric(18,2)) / CAST('{right}' AS numeric(12,3)), avg(x) FROM (VALUES ({left}), (0.01), (0.01)) t(x)"

    assert ours(sql) == theirs(sql)


@SAME_ENGINE
@given(st.lists(st.datetimes(), min_size=1, max_size=20))
def test_moments_are_written_alike(ours: Ask, theirs: Ask, values: list[Any]) -> None:
    table, named = as_parameters([value.isoformat(sep=" ") for value in values])
    sql = (
        f"SELECT m, CAST(m AS text), CAST(m AS date), CAST(m AS time), CAST(m AS timestamptz) "
        f"FROM (SELECT n, CAST(s AS timestamp) AS m {table.split(' ORDER')[0]}) u ORDER BY n"
    )

    assert ours(sql, named) == theirs(sql, named)


@SAME_ENGINE
@given(TEXTS | LETTERS, st.text(st.sampled_from("%_\\aA.é"), max_size=5))
def test_patterns_match_alike(ours: Ask, theirs: Ask, value: str, pattern: str) -> None:
    named = [{"name": "k0", "type": "varchar", "value": value}, {"name": "k1", "type": "varchar", "value": pattern}]
    sql = "SELECT :k0 LIKE :k1, :k1 LIKE :k1"

    def found(ask: Ask) -> Any:
        try:
            return ask(sql, named)
        except SqlError as error:
            return error.sqlstate

    assert found(ours) == found(theirs)
