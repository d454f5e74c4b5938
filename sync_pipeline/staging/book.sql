-- The book: what all processes of a SYNC_HOME share. Rows of the source are not in it; they live in their ranges.
-- Instants are UTC in ISO 8601, so that they sort as text. JSON where the document is read as a whole.

CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

-- One pass. The newest night is the one that was opened last.
CREATE TABLE IF NOT EXISTS night (
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
    seconds REAL NOT NULL DEFAULT 0
) STRICT;

-- One range of a night, in the order of `place`. The counts are those of its generation.
CREATE TABLE IF NOT EXISTS range (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    partition TEXT NOT NULL,
    place INTEGER NOT NULL,
    state TEXT NOT NULL,
    expected INTEGER NOT NULL,
    staged INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    unprocessed INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    set_aside INTEGER NOT NULL DEFAULT 0,
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
    PRIMARY KEY (plan_id, partition)
) STRICT;

-- Runs of an orchestrator that came as far as the book: those that did not are counted by the orchestrator alone.
CREATE TABLE IF NOT EXISTS run (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    run_id TEXT NOT NULL,
    PRIMARY KEY (plan_id, run_id)
) STRICT;

-- One ingest job from the intent to create it until it is accounted for or dropped.
CREATE TABLE IF NOT EXISTS job (
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
    FOREIGN KEY (plan_id, partition) REFERENCES range (plan_id, partition)
) STRICT;
CREATE INDEX IF NOT EXISTS job_of_range ON job (plan_id, partition);
CREATE INDEX IF NOT EXISTS job_by_id ON job (job_id);
CREATE INDEX IF NOT EXISTS job_open ON job (state) WHERE state NOT IN ('accounted', 'dropped');

-- API calls of a night by endpoint.
CREATE TABLE IF NOT EXISTS call (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    endpoint TEXT NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (plan_id, endpoint)
) STRICT;

-- Every measurement and every verdict there was; the night holds the newest of each. A failed measurement has only `error`.
CREATE TABLE IF NOT EXISTS measurement (
    number INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    recorded_at TEXT NOT NULL,
    measurement TEXT,
    error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE IF NOT EXISTS verdict (
    number INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    recorded_at TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reasons TEXT NOT NULL,
    seconds REAL NOT NULL
) STRICT;

-- Conditions that somebody is told of: what fails, and the notes that recipients still wait for.
CREATE TABLE IF NOT EXISTS condition (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;
