-- Lost calls of one service on one side: numbers that these recorders gave, between a first and a last
-- one, and that are nowhere in the tables.
SELECT coalesce(sum(g.last_missing - g.first_missing + 1), 0)::bigint
FROM inference_gaps g
JOIN unnest(%(recorders)s::uuid[], %(first)s::bigint[], %(last)s::bigint[]) AS r (recorder_id, first, last)
     USING (recorder_id)
WHERE g.role = %(role)s AND g.inference_service = %(service)s
  AND g.first_missing >= r.first AND g.last_missing <= r.last
