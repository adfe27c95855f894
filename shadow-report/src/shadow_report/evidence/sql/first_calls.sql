-- When the primary's first calls with these pair ids came.
SELECT pair_id, min(request_time)
FROM inference_requests
WHERE pair_id = ANY (%(pair_ids)s::text[]) AND role = 'primary' AND %(primary)s IN (inference_service, '')
  AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
GROUP BY pair_id
