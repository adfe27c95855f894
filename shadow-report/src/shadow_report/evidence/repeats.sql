-- Answers of the primary to requests that it saw more than once. Bounded: only bodies whose hash
-- begins below a limit are looked at, at most %(bodies)s of them and %(answers)s answers each.
WITH calls AS (
    SELECT request_sha256, record_id, request_time,
           row_number() OVER (PARTITION BY request_sha256 ORDER BY request_time, record_id) AS attempt,
           count(*) OVER (PARTITION BY request_sha256)                                      AS attempts
    FROM inference_requests
    WHERE role = 'primary' AND inference_service = %(primary)s AND NOT request_truncated
      AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
      AND get_byte(request_sha256, 0) * 256 + get_byte(request_sha256, 1) < %(hash_below)s
),
repeated AS (
    SELECT *, dense_rank() OVER (ORDER BY request_sha256) AS body FROM calls WHERE attempts > 1
)
SELECT r.request_sha256, a.status_code, coalesce(convert_to(a.response_data::text, 'UTF8'), a.response_raw)
FROM repeated r
JOIN inference_responses a ON a.record_id = r.record_id AND a.request_time = r.request_time
WHERE r.body <= %(bodies)s AND r.attempt <= %(answers)s AND NOT a.response_truncated
ORDER BY r.body, r.attempt
