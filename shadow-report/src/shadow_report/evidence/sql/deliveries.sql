-- What was delivered lately and may be of pairs that were counted before; and what other services recorded
-- of that time, one of which may turn out to be the one that is compared; where none is yet, any shadow's.
SELECT record_id, role, inference_service, pair_id, request_time, created_at
FROM inference_requests
WHERE created_at >= %(delivered_since)s::timestamptz AND NOT starts_with(pair_id, 'itself:')
  AND ((role = 'shadow' AND %(shadow)s IN (inference_service, '')) OR request_time < %(before)s::timestamptz)
