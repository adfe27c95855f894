-- The primaries that have calls in the window.
SELECT DISTINCT inference_service FROM inference_requests
WHERE role = 'primary'
  AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
ORDER BY 1
