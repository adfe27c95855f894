-- The keys of the calls to replay, in their original order. Of calls with one pair id only the first
-- is sent: only the first is compared. Two sorts: an anti-join may be planned as nested loops where
-- the tables have no statistics yet.
SELECT record_id, request_time, pair_id, request_size, count(*) OVER () AS total
FROM (
    SELECT DISTINCT ON (pair_id) pair_id, record_id, request_time, request_size
    FROM inference_requests
    WHERE role = 'primary' AND inference_service = %(primary)s AND NOT starts_with(pair_id, 'itself:')
      AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
    ORDER BY pair_id, request_time, record_id
) AS first_calls
WHERE (request_time, record_id) > (%(after_time)s::timestamptz, %(after_record)s::uuid)
ORDER BY request_time, record_id
