COPY pg_temp.stage_requests FROM STDIN (FORMAT binary)
