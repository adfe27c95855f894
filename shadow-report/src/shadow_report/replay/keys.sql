-- The keys of the calls to replay, in their original order. Of calls with one pair id only the first
-- is sent: only the first is compared.
SELECT r.record_id, r.request_time, r.request_size, count(*) OVER () AS total
FROM inference_requests r
WHERE r.role = 'primary' AND r.inference_service = %(primary)s
  AND r.request_time >= %(since)s::timestamptz AND r.request_time < %(until)s::timestamptz
  AND (r.request_time, r.record_id) > (%(after_time)s::timestamptz, %(after_record)s::uuid)
  AND NOT EXISTS (
      SELECT FROM inference_requests e
      WHERE e.pair_id = r.pair_id AND e.role = 'primary' AND e.inference_service = %(primary)s
        AND (e.request_time, e.record_id) < (r.request_time, r.record_id))
ORDER BY r.request_time, r.record_id
