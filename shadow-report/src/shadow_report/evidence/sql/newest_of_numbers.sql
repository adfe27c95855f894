-- The newest call among those with these numbers, one of each recorder.
SELECT max(request_time)
FROM inference_requests
JOIN unnest(%(recorders)s::uuid[], %(numbers)s::bigint[]) AS n (recorder_id, sequence)
     USING (recorder_id, sequence)
