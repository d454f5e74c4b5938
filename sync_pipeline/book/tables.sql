-- The tables of a new book in SQLite, of the newest layout: what the migrations make one after the other. A new book
-- is made of this text, because loading the migrations costs more time and memory than a whole look at a night.

CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE night (
    number INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    stop_requested_at TEXT,
    parked_until TEXT,
    parked_reason TEXT NOT NULL DEFAULT '',
    parkings INTEGER NOT NULL DEFAULT 0,
    verdict TEXT,
    verdict_at TEXT,
    verdict_reasons TEXT NOT NULL DEFAULT '[]',
    verdict_runs INTEGER,
    measurement TEXT,
    measured_runs INTEGER,
    measuring_runs INTEGER,
    measure_tries INTEGER NOT NULL DEFAULT 0,
    measuring_since TEXT,
    measure_seen_at TEXT,
    measure_run_id TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0,
    pipeline TEXT NOT NULL DEFAULT 'opportunity'
) STRICT;
CREATE TABLE range (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    partition TEXT NOT NULL,
    place INTEGER NOT NULL,
    state TEXT NOT NULL,
    expected INTEGER NOT NULL,
    staged INTEGER NOT NULL DEFAULT 0,
    rows_sent INTEGER NOT NULL DEFAULT 0,
    runs INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 1,
    repairs INTEGER NOT NULL DEFAULT 0,
    is_repair INTEGER NOT NULL DEFAULT 0,
    pid INTEGER NOT NULL DEFAULT 0,
    run_id TEXT NOT NULL DEFAULT '',
    started_at TEXT,
    heartbeat_at TEXT,
    finished_at TEXT,
    rearmed_at TEXT,
    error TEXT NOT NULL DEFAULT '',
    pipeline TEXT NOT NULL DEFAULT 'opportunity',
    PRIMARY KEY (plan_id, partition)
) STRICT;
CREATE TABLE outcome (
    pipeline TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    partition TEXT NOT NULL,
    outcome TEXT NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (plan_id, partition, outcome),
    FOREIGN KEY (plan_id, partition) REFERENCES range (plan_id, partition)
) STRICT;
CREATE TABLE run (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    run_id TEXT NOT NULL,
    PRIMARY KEY (plan_id, run_id)
) STRICT;
CREATE TABLE job (
    intent INTEGER PRIMARY KEY AUTOINCREMENT,
    plan_id TEXT NOT NULL,
    partition TEXT NOT NULL,
    generation INTEGER NOT NULL,
    part INTEGER NOT NULL,
    round INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    intended_at TEXT NOT NULL,
    job_id TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'intended',
    processed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    pipeline TEXT NOT NULL DEFAULT 'opportunity',
    FOREIGN KEY (plan_id, partition) REFERENCES range (plan_id, partition)
) STRICT;
CREATE TABLE call (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    endpoint TEXT NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (plan_id, endpoint)
) STRICT;
CREATE TABLE measurement (
    number INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    recorded_at TEXT NOT NULL,
    measurement TEXT,
    error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE verdict (
    number INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    recorded_at TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reasons TEXT NOT NULL,
    seconds REAL NOT NULL
) STRICT;
CREATE TABLE condition (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE INDEX job_of_range ON job (plan_id, partition);
CREATE INDEX job_by_id ON job (job_id);
CREATE INDEX job_open ON job (state) WHERE state NOT IN ('accounted', 'dropped');
INSERT INTO alembic_version VALUES ('2');
INSERT INTO fact VALUES ('layout', '2');
