-- When the call of a primary came that was delivered last; by the index on created_at.
SELECT max(request_time)
FROM (
    SELECT request_time
    FROM inference_requests
    WHERE role = 'primary' AND NOT starts_with(pair_id, 'itself:')
    ORDER BY created_at DESC
    LIMIT 1
) AS newest
