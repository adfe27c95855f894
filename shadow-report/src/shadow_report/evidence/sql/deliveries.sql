-- What was delivered lately and may be of pairs that were counted before.
SELECT record_id, role, pair_id, request_time, created_at
FROM inference_requests
WHERE created_at >= %(delivered_since)s::timestamptz
  AND ((role = 'primary' AND inference_service = %(primary)s AND NOT starts_with(pair_id, 'itself:')
        AND request_time < %(before)s::timestamptz)
    OR (role = 'shadow' AND inference_service = %(shadow)s))
