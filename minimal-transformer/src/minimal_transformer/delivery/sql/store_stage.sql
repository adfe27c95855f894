-- Postgres itself decides what casts to jsonb. No conflict target: naming one takes the right to SELECT.
-- A row that is there already was sent before; record_id was minted when the call arrived.
INSERT INTO inference_requests (
    record_id, request_time, recorder_id, sequence, pair_id, pair_source, role, inference_service,
    model_name, model_version, protocol, predict_url, request_headers, request_data, request_raw,
    request_size, request_sha256, request_truncated
)
SELECT record_id, request_time, recorder_id, sequence, pair_id, pair_source, role, inference_service,
       model_name, model_version, protocol, predict_url, request_headers::json,
       CASE WHEN casts THEN request_data::json END,
       CASE WHEN request_raw IS NULL AND NOT casts THEN convert_to(request_data, 'UTF8')
            ELSE request_raw END,
       request_size, request_sha256, request_truncated
FROM (
    SELECT *, pg_input_is_valid(request_data, 'jsonb') AS casts FROM pg_temp.stage_requests OFFSET 0
) AS stage
ON CONFLICT DO NOTHING;

INSERT INTO inference_responses (
    record_id, request_time, pair_id, response_time, status_code, error, duration_ms, ttft_ms,
    generation, response_data, response_raw, response_size, response_truncated
)
SELECT record_id, request_time, pair_id, response_time, status_code, error, duration_ms, ttft_ms,
       generation::json,
       CASE WHEN casts THEN response_data::json END,
       CASE WHEN response_raw IS NULL AND NOT casts THEN convert_to(response_data, 'UTF8')
            ELSE response_raw END,
       response_size, response_truncated
FROM (
    SELECT *, pg_input_is_valid(response_data, 'jsonb') AS casts FROM pg_temp.stage_responses OFFSET 0
) AS stage
ON CONFLICT DO NOTHING;
