-- Which service of a role was called last, of the calls that were delivered last, and when; by the index on
-- created_at. So many are looked at, whose role may not be among them at all.
SELECT inference_service, request_time
FROM (
    SELECT inference_service, request_time, role, created_at
    FROM inference_requests
    WHERE NOT starts_with(pair_id, 'itself:')
    ORDER BY created_at DESC
    LIMIT 20000
) AS newest
WHERE role = %(role)s
ORDER BY created_at DESC, request_time DESC
LIMIT 1
