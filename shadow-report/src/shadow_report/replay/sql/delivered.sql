-- Primary calls in the order in which they were delivered, whatever the time at which they came: a
-- recorder that was stuck delivers hours later. By the index on created_at.
-- Where the tables have no statistics yet, Postgres expects `role = 'primary'` and the like to leave next
-- to nothing, and would sort the whole backlog for each page; of a CASE it expects that half remain.
SELECT created_at, record_id, request_time, pair_id, request_size, inference_service
FROM inference_requests
WHERE (created_at, record_id) > (%(after_time)s::timestamptz, %(after_record)s::uuid)
  AND created_at < %(before)s::timestamptz
  AND request_time >= %(since)s::timestamptz
  AND CASE WHEN request_time < %(until)s::timestamptz AND role = 'primary'
           THEN inference_service = coalesce(%(primary)s, inference_service) AND NOT starts_with(pair_id, 'itself:')
           ELSE false END
ORDER BY created_at, record_id
LIMIT %(limit)s
