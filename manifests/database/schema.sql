-- The tables of a shadow deployment: every call to the primary and to the shadow, as request and
-- response rows. Postgres 16 or newer. Plain SQL in one transaction: any client can run it, again and
-- again, and several at once; what is there stays as it is. Tables of the former version are upgraded
-- with their rows, see "Upgrade".

BEGIN;

DO $version$
BEGIN
    IF current_setting('server_version_num')::integer < 160000 THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = format(
            'the server is Postgres %s, and the schema needs 16 or newer; nothing was changed',
            current_setting('server_version'));
    END IF;
END
$version$;

-- Two clients that run this at once would race in CREATE ... IF NOT EXISTS.
SELECT pg_advisory_xact_lock(hashtextextended('shadow-deployment-schema', 0));

SET LOCAL client_min_messages = warning;
SET LOCAL search_path = public, pg_temp;

-- Roles -------------------------------------------------------------------------------------------
-- Roles belong to the server, not to the database, so another database's script may be making them.

DO $roles$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['transformer', 'report', 'maintenance'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role_name);
        BEGIN
            EXECUTE format('CREATE ROLE %I', role_name);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another one, at the same moment
            WHEN insufficient_privilege THEN
                RAISE insufficient_privilege USING MESSAGE = format(
                    'permission denied to create the role %s; create it, or give %s CREATEROLE',
                    role_name, current_user);
        END;
    END LOOP;
END
$roles$;

-- Tables ------------------------------------------------------------------------------------------
-- One row per call that a transformer chose to record. A body that casts to jsonb stands in *_data
-- as the caller wrote it (json keeps key order, duplicates and number text); any other body stands
-- in *_raw, byte for byte. pair_id is in both keys so that both tables can be distributed by it.

CREATE TABLE IF NOT EXISTS inference_requests (
    record_id          uuid        NOT NULL,
    request_time       timestamptz NOT NULL,
    recorder_id        uuid        NOT NULL,
    sequence           bigint      NOT NULL CHECK (sequence > 0),
    pair_id            text        NOT NULL,
    pair_source        text        NOT NULL
        CHECK (pair_source IN ('x-shadow-pair-id', 'x-request-id', 'generated')),
    role               text        NOT NULL CHECK (role IN ('primary', 'shadow')),
    inference_service  text        NOT NULL,
    model_name         text        NOT NULL,
    model_version      text,
    protocol           text        NOT NULL
        CHECK (protocol IN ('v1', 'v2', 'grpc', 'openai', 'other')),
    predict_url        text        NOT NULL,
    request_headers    json        NOT NULL,
    request_data       json,
    request_raw        bytea,
    request_size       integer     NOT NULL,
    request_sha256     bytea       NOT NULL,
    request_truncated  boolean     NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (record_id, request_time, pair_id)
) PARTITION BY RANGE (request_time);

CREATE INDEX IF NOT EXISTS inference_requests_pair_id ON inference_requests (pair_id);
-- The order of delivery, for who reads what is new. The rows of a delivery have one time, so it is small.
CREATE INDEX IF NOT EXISTS inference_requests_created_at ON inference_requests (created_at);

CREATE TABLE IF NOT EXISTS inference_responses (
    record_id          uuid        NOT NULL,
    request_time       timestamptz NOT NULL,
    pair_id            text        NOT NULL DEFAULT '',
    response_time      timestamptz NOT NULL,
    status_code        integer     NOT NULL,
    error              text,
    duration_ms        double precision NOT NULL,
    ttft_ms            double precision,
    generation         json,
    response_data      json,
    response_raw       bytea,
    response_size      integer,
    response_truncated boolean     NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (record_id, request_time, pair_id)
) PARTITION BY RANGE (request_time);

-- Upgrade -----------------------------------------------------------------------------------------
-- The former version's responses have no pair_id; their requests know it. Under an exclusive lock on
-- both tables: readers wait, so that none sees answers without their pair, and records wait on the
-- spools; calls are answered as ever. 1,000,000 calls with 300-byte bodies took 14 s on two busy cores.

DO $upgrade$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute
               WHERE attrelid = 'inference_responses'::regclass AND attname = 'pair_id') THEN
        RETURN;
    END IF;
    -- In the order in which writers and readers take them.
    LOCK TABLE inference_requests, inference_responses IN ACCESS EXCLUSIVE MODE;

    ALTER TABLE inference_requests
        DROP CONSTRAINT inference_requests_pkey,
        ADD PRIMARY KEY (record_id, request_time, pair_id),
        DROP CONSTRAINT inference_requests_protocol_check,
        ADD CONSTRAINT inference_requests_protocol_check
            CHECK (protocol IN ('v1', 'v2', 'grpc', 'openai', 'other'));

    ALTER TABLE inference_responses
        DROP CONSTRAINT inference_responses_pkey,
        ADD COLUMN pair_id text,
        ADD COLUMN ttft_ms double precision,
        ADD COLUMN generation json;
    -- No index is there yet that would have to follow.
    UPDATE inference_responses a SET pair_id = r.pair_id
    FROM inference_requests r
    WHERE r.record_id = a.record_id AND r.request_time = a.request_time;
    UPDATE inference_responses SET pair_id = record_id::text WHERE pair_id IS NULL;
    ALTER TABLE inference_responses
        ALTER COLUMN pair_id SET DEFAULT '',
        ADD PRIMARY KEY (record_id, request_time, pair_id);
END
$upgrade$;

-- A transformer of the former version goes on writing responses without a pair_id, and its spool may
-- be delivered long after it. They are completed at the end of their transaction, which may bring the
-- request after the response. A response whose request is not here gets its record_id.
CREATE OR REPLACE FUNCTION complete_response() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    found_pair_id text := coalesce(
        (SELECT pair_id FROM inference_requests
         WHERE record_id = NEW.record_id AND request_time = NEW.request_time LIMIT 1),
        NEW.record_id::text);
BEGIN
    IF EXISTS (SELECT FROM inference_responses
               WHERE record_id = NEW.record_id AND request_time = NEW.request_time
                 AND pair_id = found_pair_id) THEN  -- delivered before
        DELETE FROM inference_responses
        WHERE record_id = NEW.record_id AND request_time = NEW.request_time AND pair_id = '';
    ELSE
        UPDATE inference_responses SET pair_id = found_pair_id
        WHERE record_id = NEW.record_id AND request_time = NEW.request_time AND pair_id = '';
    END IF;
    RETURN NULL;
END
$$;

DO $trigger$
DECLARE
    is_distributed boolean := false;
BEGIN
    IF to_regclass('pg_dist_partition') IS NOT NULL THEN  -- Citus, see citus.sql
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = $1)'
            INTO is_distributed USING 'inference_responses'::regclass;
    END IF;
    IF NOT is_distributed AND NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'inference_responses'::regclass AND tgname = 'complete_response'
    ) THEN
        CREATE CONSTRAINT TRIGGER complete_response AFTER INSERT ON inference_responses
            DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.pair_id = '') EXECUTE FUNCTION complete_response();
    END IF;
END
$trigger$;

COMMENT ON TABLE inference_requests IS 'Calls as they arrived, one row each.';
COMMENT ON COLUMN inference_requests.record_id IS 'UUIDv7, minted by the transformer; joins the response row.';
COMMENT ON COLUMN inference_requests.recorder_id IS 'One per start of a recording process.';
COMMENT ON COLUMN inference_requests.sequence IS '1, 2, 3 ... per recorder_id; a hole is a lost record.';
COMMENT ON COLUMN inference_requests.pair_id IS 'The same on the primary''s and the shadow''s copy of a call.';
COMMENT ON COLUMN inference_requests.request_size IS 'Bytes that arrived, also when the stored body is cut.';
COMMENT ON COLUMN inference_requests.request_sha256 IS 'Of the whole body, also when the stored body is cut; of the redacted body where values were redacted.';
COMMENT ON TABLE inference_responses IS 'What the callers got, one row per answered, failed or abandoned call.';
COMMENT ON COLUMN inference_responses.pair_id IS 'Its request''s.';
COMMENT ON COLUMN inference_responses.ttft_ms IS 'Of a generated answer: milliseconds to its first token.';
COMMENT ON COLUMN inference_responses.generation IS 'Of a generated answer: stream_end (done, no_done, cut, left, stopped), chunks, prompt_tokens, completion_tokens.';
COMMENT ON COLUMN inference_responses.duration_ms IS 'From the arrival of the request''s body to the end of its handling, milliseconds.';

-- A row outside every day's partition is kept here until maintain_partitions() makes its day.
CREATE TABLE IF NOT EXISTS inference_requests_default PARTITION OF inference_requests DEFAULT;
CREATE TABLE IF NOT EXISTS inference_responses_default PARTITION OF inference_responses DEFAULT;

-- Where a recorder's numbering starts after old partitions were dropped, so that retention is not
-- mistaken for loss.
CREATE TABLE IF NOT EXISTS inference_retention (
    recorder_id   uuid   PRIMARY KEY,
    last_dropped  bigint NOT NULL
);

-- lz4 is two to three times faster than the default on bodies over 2 kB, where the server has it. Once,
-- since it locks the tables.
DO $compression$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute
               WHERE attrelid = 'inference_responses'::regclass AND attcompression = 'l') THEN
        RETURN;
    END IF;
    ALTER TABLE inference_requests
        ALTER COLUMN request_data SET COMPRESSION lz4, ALTER COLUMN request_raw SET COMPRESSION lz4;
    ALTER TABLE inference_responses
        ALTER COLUMN response_data SET COMPRESSION lz4, ALTER COLUMN response_raw SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$compression$;

-- Partitions --------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION maintain_partitions(keep interval DEFAULT NULL, ahead integer DEFAULT 7)
RETURNS TABLE (action text, partition text, moved_rows bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = public, pg_temp
SET timezone = 'UTC'
-- Waiting longer for a reader's lock would make the writers queue behind this.
SET lock_timeout = '5s'
AS $$
-- Drops the days that ended more than `keep` ago (never with NULL); makes the daily partitions (UTC)
-- from today to `ahead` days on, and those of rows that wait in the default partitions, old ones for
-- the next run to drop. Returns what it did; twice at once does nothing more. Writers wait while it
-- moves rows: 30 s for 1,000,000 calls of 300-byte bodies on two busy cores.
DECLARE
    parent      text;
    day         date;
    name        text;
    old         record;
    oldest_kept date := (now() - keep)::date;
    moved       bigint;
BEGIN
    IF keep < interval '1 day' OR ahead NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'keep is % and ahead is %; keep at least 1 day and make 0 to 366 days ahead', keep, ahead
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('shadow-deployment-schema', 0));

    FOREACH parent IN ARRAY ARRAY['inference_requests', 'inference_responses'] LOOP
        -- First, since this locks the table, and the rest the default partition: in this order readers
        -- take them as well.
        FOR old IN
            SELECT c.relname AS name
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = parent::regclass
              AND c.relname ~ ('^' || parent || '_\d{8}$')
              AND to_date(right(c.relname, 8), 'YYYYMMDD') < oldest_kept
            ORDER BY 1
        LOOP
            IF parent = 'inference_requests' THEN
                EXECUTE format(
                    'INSERT INTO inference_retention AS r (recorder_id, last_dropped)
                     SELECT recorder_id, max(sequence) FROM %I GROUP BY recorder_id
                     ON CONFLICT (recorder_id) DO UPDATE
                     SET last_dropped = greatest(r.last_dropped, excluded.last_dropped)', old.name);
            END IF;
            EXECUTE format('DROP TABLE %I', old.name);
            action := 'dropped'; partition := old.name; moved_rows := 0;
            RETURN NEXT;
        END LOOP;

        FOR day IN EXECUTE format(
            'SELECT d::date FROM generate_series(current_date, current_date + $1, interval ''1 day'') AS d
             UNION SELECT DISTINCT request_time::date FROM %I ORDER BY 1', parent || '_default')
            USING ahead
        LOOP
            name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            -- Writers wait here, where they find the new partition afterwards: a row of the day that
            -- comes to the default one between the move and the attachment would be in the way.
            EXECUTE format('LOCK TABLE ONLY %I IN SHARE ROW EXCLUSIVE MODE', parent);
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
            -- The move and the attachment are one transaction: no reader misses a row.
            EXECUTE format(
                'WITH moved AS (DELETE FROM %I WHERE request_time >= $1 AND request_time < $2 RETURNING *)
                 INSERT INTO %I SELECT * FROM moved', parent || '_default', name)
                USING day::timestamptz, (day + 1)::timestamptz;
            GET DIAGNOSTICS moved = ROW_COUNT;
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           parent, name, day::timestamptz, (day + 1)::timestamptz);
            action := 'created'; partition := name; moved_rows := moved;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;

SELECT maintain_partitions();

-- Views -------------------------------------------------------------------------------------------

-- One row per pair_id: the first primary and the first shadow call, with NULLs where one is missing. Of
-- a follower's attempts one that has no answer, since the shadow's process ended, comes after the others.
-- NOT MATERIALIZED, so that a question about one pair_id reads an index and not the tables.
CREATE OR REPLACE VIEW inference_pairs AS
WITH calls AS NOT MATERIALIZED (
    SELECT r.pair_id, r.role, r.record_id, r.request_time, r.inference_service, r.request_data,
           r.request_sha256, a.status_code, a.response_data, a.duration_ms, a.ttft_ms, a.generation,
           a.record_id IS NULL AND r.request_headers ->> 'x-shadow-source' IS NOT NULL AS died
    FROM inference_requests r
    LEFT JOIN inference_responses a USING (record_id, request_time, pair_id)
),
first_primary AS (
    SELECT DISTINCT ON (pair_id) * FROM calls WHERE role = 'primary'
    ORDER BY pair_id, request_time, record_id
),
first_shadow AS (
    SELECT DISTINCT ON (pair_id) * FROM calls WHERE role = 'shadow'
    ORDER BY pair_id, died, request_time, record_id
)
SELECT pair_id,
       coalesce(p.request_time, s.request_time)     AS request_time,
       CASE WHEN p.record_id IS NOT NULL THEN p.request_data ELSE s.request_data END AS request_data,
       p.record_id         AS primary_record_id,
       s.record_id         AS shadow_record_id,
       p.status_code       AS primary_status,
       s.status_code       AS shadow_status,
       p.response_data     AS primary_response,
       s.response_data     AS shadow_response,
       p.duration_ms       AS primary_duration_ms,
       s.duration_ms       AS shadow_duration_ms,
       p.inference_service AS primary_service,
       s.inference_service AS shadow_service,
       p.request_sha256 = s.request_sha256          AS same_request,
       p.record_id IS NOT NULL AND s.record_id IS NOT NULL AS paired,
       p.ttft_ms           AS primary_ttft_ms,
       s.ttft_ms           AS shadow_ttft_ms,
       p.generation        AS primary_generation,
       s.generation        AS shadow_generation
FROM first_primary p
FULL JOIN first_shadow s USING (pair_id);

COMMENT ON VIEW inference_pairs IS
    'One row per pair_id, also where only one side was recorded: count WHERE paired for the pairs.';

-- One row per hole in a recorder's numbering: calls that were chosen for recording and are not here.
CREATE OR REPLACE VIEW inference_gaps AS
SELECT recorder_id, inference_service, role, previous + 1 AS first_missing, sequence - 1 AS last_missing
FROM (
    SELECT r.recorder_id, r.inference_service, r.role, r.sequence,
           lag(r.sequence, 1, coalesce(t.last_dropped, 0))
               OVER (PARTITION BY r.recorder_id ORDER BY r.sequence) AS previous
    FROM inference_requests r
    LEFT JOIN inference_retention t USING (recorder_id)
) AS numbered
WHERE sequence > previous + 1;

-- Grants ------------------------------------------------------------------------------------------
-- The transformer may add rows and see none; the report may see all and change none; maintenance may
-- only call the function.

REVOKE ALL ON inference_requests, inference_responses, inference_retention, inference_pairs,
    inference_gaps FROM PUBLIC, transformer, report, maintenance;
REVOKE ALL ON FUNCTION maintain_partitions(interval, integer) FROM PUBLIC;
GRANT INSERT ON inference_requests, inference_responses TO transformer;
-- A distributed server reads what is behind a view with the rights of who asks, so inference_retention.
GRANT SELECT ON inference_requests, inference_responses, inference_retention, inference_pairs,
    inference_gaps TO report;
GRANT EXECUTE ON FUNCTION maintain_partitions(interval, integer) TO maintenance;

COMMIT;
