-- Whether one of these versions of the shadow had been mirrored to before the window: any pair with both
-- calls before it. Calls of the window that are without a shadow call then miss one.
SELECT EXISTS (
    SELECT FROM inference_requests s
    JOIN inference_requests p ON p.pair_id = s.pair_id AND p.role = 'primary'
     AND p.inference_service = %(primary)s AND p.request_time < %(since)s::timestamptz
    WHERE s.role = 'shadow' AND s.inference_service = %(shadow)s AND s.request_time < %(since)s::timestamptz
      AND coalesce(s.model_version, '') = ANY (%(versions)s::text[])
)
