-- How many of the primary's calls came from `since` to `until`.
SELECT count(*)
FROM inference_requests
WHERE role = 'primary' AND inference_service = %(primary)s AND NOT starts_with(pair_id, 'itself:')
  AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
