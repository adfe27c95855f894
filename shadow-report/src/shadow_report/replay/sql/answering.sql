-- Who answers callers: the service of the newest call of a primary that was delivered since a time. By the index
-- on created_at; so many are looked at, among which a backlog of the shadow's may leave none.
SELECT inference_service
FROM (
    SELECT inference_service, role, created_at, request_time
    FROM inference_requests
    WHERE created_at >= %(since)s AND NOT starts_with(pair_id, 'itself:')
    ORDER BY created_at DESC
    LIMIT 20000
) AS newest
WHERE role = 'primary'
ORDER BY created_at DESC, request_time DESC
LIMIT 1
