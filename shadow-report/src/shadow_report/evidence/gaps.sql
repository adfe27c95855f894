-- Lost calls of one service on one side: numbers that recorders of the window gave and that are nowhere.
SELECT coalesce(sum(g.last_missing - g.first_missing + 1), 0)::bigint
FROM inference_gaps g
WHERE g.role = %(role)s AND g.inference_service = %(service)s
  AND g.recorder_id = ANY (%(recorders)s::uuid[])
