-- What was delivered lately and may be of pairs, or of windows, that were counted before: of every service that
-- may turn out to be the one that is compared.
SELECT record_id, role, inference_service, pair_id, request_time, created_at
FROM inference_requests
WHERE created_at >= %(delivered_since)s::timestamptz AND NOT starts_with(pair_id, 'itself:')
  AND ((role = 'shadow' AND coalesce(%(shadow)s::text, inference_service) = inference_service)
    OR (role = 'primary' AND request_time < %(before)s::timestamptz))
