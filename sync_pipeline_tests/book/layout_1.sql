-- The book of two nights as a version with layout 1 left it: one is over, the other was killed while it loaded.
BEGIN TRANSACTION;
CREATE TABLE call (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    endpoint TEXT NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (plan_id, endpoint)
) STRICT;
INSERT INTO "call" VALUES('20260610T020000.000000Z','rows',5);
INSERT INTO "call" VALUES('20260610T020000.000000Z','query-sql',2);
CREATE TABLE condition (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;
INSERT INTO "condition" VALUES('night','{"failing": ["Bänk"]}');
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO "fact" VALUES('layout','1');
INSERT INTO "fact" VALUES('certificate','[1, "abababababababababababababababababababababababababababababababab"]');
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
    FOREIGN KEY (plan_id, partition) REFERENCES range (plan_id, partition)
) STRICT;
INSERT INTO "job" VALUES(1,'20260610T020000.000000Z','end-ce7393bb',1,1,0,12,0,'2026-06-10T03:00:00.000000+00:00','750a','Open',0,0,0,'');
CREATE TABLE measurement (
    number INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    recorded_at TEXT NOT NULL,
    measurement TEXT,
    error TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO "measurement" VALUES(1,'20260609T020000.000000Z','2026-06-10T03:00:00.000000+00:00','{"level": "values", "measured_at": "2026-06-10T03:00:00.000000+00:00", "seconds": 1.5, "expected": 30, "present": 30, "missing": 0, "different": 0, "doubled": null, "orphans": null, "fresh": null, "changed_since": 0, "moved": {}, "reasons": {}, "distribution": null, "drifting": [], "by_range": {"b-14dbd1d6": {"present": 10}}, "sample": [], "error": ""}','');
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
    seconds REAL NOT NULL DEFAULT 0
) STRICT;
INSERT INTO "night" VALUES(1,'20260609T020000.000000Z','{"plan_id": "20260609T020000.000000Z", "org": {"org_id": "00D000000000001AAA", "name": "Bänk", "is_simulated": false, "dataspace": "default"}, "source_object": "ExtOpportunities__dlm", "target_object": "Opportunity", "mapping_digest": "0000000000000000", "profile": {"rows": 30, "null_keys": 0, "distinct_keys": 30, "matched_keys": 30, "blank_keys": 0, "min_key": "a", "max_key": "😀"}, "ranges": [{"place": 0, "range": {"after": null, "through": "b"}, "expected": 10}, {"place": 1, "range": {"after": "b", "through": null}, "expected": 20}], "created_at": "2026-06-10T03:00:00+00:00", "forecast": {"api_calls": 100, "ingest_batches": 1, "disk_bytes": 1000, "seconds": 1.5, "api_calls_left": 900, "api_calls_max": null, "ingest_batches_left": null, "storage_mb": null, "storage_mb_left": null, "disk_bytes_free": null}, "notes": ["one note"]}','2026-06-10T03:00:00.000000+00:00',NULL,NULL,'',0,'reconciled','2026-06-10T03:00:00.000000+00:00','["all rows"]',2,'{"level": "values", "measured_at": "2026-06-10T03:00:00.000000+00:00", "seconds": 1.5, "expected": 30, "present": 30, "missing": 0, "different": 0, "doubled": null, "orphans": null, "fresh": null, "changed_since": 0, "moved": {}, "reasons": {}, "distribution": null, "drifting": [], "by_range": {"b-14dbd1d6": {"present": 10}}, "sample": [], "error": ""}',2,NULL,0,NULL,'2026-06-10T03:00:00.000000+00:00','',60.0);
INSERT INTO "night" VALUES(2,'20260610T020000.000000Z','{"plan_id": "20260610T020000.000000Z", "org": {"org_id": "00D000000000001AAA", "name": "Bänk", "is_simulated": false, "dataspace": "default"}, "source_object": "ExtOpportunities__dlm", "target_object": "Opportunity", "mapping_digest": "0000000000000000", "profile": {"rows": 30, "null_keys": 0, "distinct_keys": 30, "matched_keys": 30, "blank_keys": 0, "min_key": "a", "max_key": "😀"}, "ranges": [{"place": 0, "range": {"after": null, "through": "b"}, "expected": 10}, {"place": 1, "range": {"after": "b", "through": null}, "expected": 20}], "created_at": "2026-06-10T03:00:00+00:00", "forecast": {"api_calls": 100, "ingest_batches": 1, "disk_bytes": 1000, "seconds": 1.5, "api_calls_left": 900, "api_calls_max": null, "ingest_batches_left": null, "storage_mb": null, "storage_mb_left": null, "disk_bytes_free": null}, "notes": ["one note"]}','2026-06-10T03:00:00.000000+00:00',NULL,NULL,'',0,NULL,NULL,'[]',NULL,NULL,NULL,NULL,0,NULL,NULL,'',0.0);
CREATE TABLE range (
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
INSERT INTO "range" VALUES('20260609T020000.000000Z','b-14dbd1d6',0,'done',10,10,10,0,0,0,0,0,0,1,0,1,0,0,7,'','2026-06-10T03:00:00.000000+00:00','2026-06-10T03:00:00.000000+00:00','2026-06-10T03:00:00.000000+00:00',NULL,'');
INSERT INTO "range" VALUES('20260609T020000.000000Z','end-ce7393bb',1,'done',20,20,20,0,0,0,0,0,0,1,0,1,0,0,7,'','2026-06-10T03:00:00.000000+00:00','2026-06-10T03:00:00.000000+00:00','2026-06-10T03:00:00.000000+00:00',NULL,'');
INSERT INTO "range" VALUES('20260610T020000.000000Z','b-14dbd1d6',0,'done',10,10,4,3,1,0,2,1,0,1,0,1,0,0,8,'run','2026-06-10T03:00:00.000000+00:00','2026-06-10T03:00:00.000000+00:00','2026-06-10T03:00:00.000000+00:00',NULL,'');
INSERT INTO "range" VALUES('20260610T020000.000000Z','end-ce7393bb',1,'loading',20,12,0,0,0,0,0,0,12,1,0,1,0,0,9,'','2026-06-10T03:00:00.000000+00:00','2026-06-10T03:00:00.000000+00:00',NULL,NULL,'');
CREATE TABLE run (
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    run_id TEXT NOT NULL,
    PRIMARY KEY (plan_id, run_id)
) STRICT;
INSERT INTO "run" VALUES('20260610T020000.000000Z','run');
CREATE TABLE verdict (
    number INTEGER PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES night (plan_id),
    recorded_at TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reasons TEXT NOT NULL,
    seconds REAL NOT NULL
) STRICT;
INSERT INTO "verdict" VALUES(1,'20260609T020000.000000Z','2026-06-10T03:00:00.000000+00:00','reconciled','["all rows"]',60.0);
CREATE INDEX job_of_range ON job (plan_id, partition);
CREATE INDEX job_by_id ON job (job_id);
CREATE INDEX job_open ON job (state) WHERE state NOT IN ('accounted', 'dropped');
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('job',1);
COMMIT;
