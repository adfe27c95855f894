-- Made in each transaction that needs it and not once per connection, so that a pooler may hand each
-- transaction to another connection.
CREATE TEMP TABLE IF NOT EXISTS stage_requests (
    record_id          uuid,
    request_time       timestamptz,
    recorder_id        uuid,
    sequence           bigint,
    pair_id            text,
    pair_source        text,
    role               text,
    inference_service  text,
    model_version      text,
    model_name         text,
    protocol           text,
    predict_url        text,
    request_headers    text,
    request_size       integer,
    request_sha256     bytea,
    request_truncated  boolean,
    -- A value that the stage compresses arrives in its table compressed the stage's way, not the table's.
    request_data       text  STORAGE EXTERNAL,
    request_raw        bytea STORAGE EXTERNAL
) ON COMMIT DELETE ROWS;

CREATE TEMP TABLE IF NOT EXISTS stage_responses (
    record_id          uuid,
    request_time       timestamptz,
    response_time      timestamptz,
    status_code        integer,
    duration_ms        double precision,
    response_truncated boolean,
    pair_id            text,
    ttft_ms            double precision,
    generation         text,
    error              text,
    response_size      integer,
    response_data      text  STORAGE EXTERNAL,
    response_raw       bytea STORAGE EXTERNAL
) ON COMMIT DELETE ROWS;
