-- One range of one night. Rows are in Parquet files beside this database; here is what they are and what became of them.
-- Ask `staged_row` for rows and `outcome` for their fate, from any folder. Instants are UTC.

-- Single facts: the layout's version, the staged columns, how often rows were put in order, how often of those for a
-- retry, the number of the last repair, and once reading has ended the rows the source counted.
CREATE TABLE IF NOT EXISTS fact (name VARCHAR PRIMARY KEY, "value" VARCHAR NOT NULL);

-- A durable file of staged rows. The cursor of the range is that of its last page.
CREATE TABLE IF NOT EXISTS page (
    number INTEGER PRIMARY KEY,
    file VARCHAR NOT NULL,
    first_row BIGINT NOT NULL,
    "rows" BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    crc32 BIGINT NOT NULL,
    cursor_key VARCHAR,
    query_id VARCHAR NOT NULL,
    query_offset BIGINT NOT NULL
);

-- A slice of rows sent as one CSV. `state`: cut, then accounted (its outcomes are known) or dropped (never counted).
-- Beside its CSV lies its slice (row, key) as Parquet; both are deleted once it is accounted.
-- `again`: some of its rows may have been saved before, so that it is a repair.
CREATE TABLE IF NOT EXISTS part (
    number INTEGER PRIMARY KEY,
    round INTEGER NOT NULL,
    "rows" BIGINT NOT NULL,
    file VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    crc32 BIGINT NOT NULL,
    slice_bytes BIGINT NOT NULL,
    slice_crc32 BIGINT NOT NULL,
    serial BOOLEAN NOT NULL,
    again BOOLEAN NOT NULL,
    state VARCHAR NOT NULL
);

-- What the result files of a part's job said. Its file names every row of the part; `id` is null where the job did not
-- save the row.
CREATE TABLE IF NOT EXISTS result (
    part INTEGER PRIMARY KEY,
    job_id VARCHAR NOT NULL,
    file VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    crc32 BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    unprocessed BIGINT NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);

-- Every row whose last fate is not "succeeded". `transient`: it may be sent again. `source`: the row as the source wrote
-- it, as one JSON object; null where the staged row says the same.
CREATE TABLE IF NOT EXISTS exception (
    "row" BIGINT PRIMARY KEY,
    key VARCHAR,
    outcome VARCHAR NOT NULL,
    code VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    "column" VARCHAR NOT NULL,
    transient BOOLEAN NOT NULL,
    set_aside BOOLEAN NOT NULL,
    source VARCHAR,
    job_id VARCHAR,
    recorded_at TIMESTAMP NOT NULL
);

-- Acknowledgements that no longer count: the row was sent again since, or its page was lost.
CREATE TABLE IF NOT EXISTS superseded (part INTEGER NOT NULL, "row" BIGINT NOT NULL, created BOOLEAN NOT NULL);

-- Acknowledgements of rows that were read again after their page was lost, under their new row number.
CREATE TABLE IF NOT EXISTS regained (
    part INTEGER NOT NULL, "row" BIGINT NOT NULL, key VARCHAR NOT NULL, id VARCHAR NOT NULL, created BOOLEAN NOT NULL
);

-- Views. Made anew whenever the files they list change; the names that begin with a dollar sign stand for those files.

-- The rows as the target is to have them: row, key, then one column for each target field.
CREATE OR REPLACE $temporary VIEW staged_row AS SELECT * FROM $pages;

-- Each row each time it was sent and accounted for.
CREATE OR REPLACE $temporary VIEW sent_row AS
SELECT part, "row", key, id, created FROM $outcomes
UNION ALL
SELECT part, "row", key, id, created FROM regained;

-- The one fate of each row that has one.
CREATE OR REPLACE $temporary VIEW outcome AS
SELECT
    "row", key, outcome, CAST(NULL AS VARCHAR) AS id, CAST(NULL AS BOOLEAN) AS created,
    code, message, "column", job_id
FROM exception
UNION ALL
SELECT sent_row."row", sent_row.key, 'succeeded', sent_row.id, sent_row.created, NULL, NULL, NULL, result.job_id
FROM sent_row
JOIN result ON result.part = sent_row.part
WHERE sent_row.created IS NOT NULL
    AND NOT EXISTS (
        SELECT 1 FROM superseded WHERE superseded.part = sent_row.part AND superseded."row" = sent_row."row"
    );
