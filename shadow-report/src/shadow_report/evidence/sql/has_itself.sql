-- Whether the primary was ever sent its own calls once more (`replay --itself`). The prefix stands in a range
-- too: in any collation the index on pair_id finds it.
SELECT EXISTS (
    SELECT FROM inference_requests
    WHERE pair_id >= 'itself' AND pair_id < 'itselg' AND starts_with(pair_id, 'itself:')
      AND role = 'primary' AND inference_service = %(primary)s
)
