COPY pg_temp.stage_responses FROM STDIN (FORMAT binary)
