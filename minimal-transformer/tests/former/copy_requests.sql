COPY inference_requests (
    record_id, request_time, recorder_id, sequence, pair_id, pair_source, role, inference_service,
    model_version, model_name, protocol, predict_url, request_headers, request_size, request_sha256,
    request_truncated, request_data, request_raw
) FROM STDIN (FORMAT binary)
