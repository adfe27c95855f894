COPY inference_responses (
    record_id, request_time, response_time, status_code, duration_ms, response_truncated, pair_id,
    ttft_ms, generation, error, response_size, response_data, response_raw
) FROM STDIN (FORMAT binary)
