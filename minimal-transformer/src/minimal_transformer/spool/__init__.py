"""Files between the call and the database: one process appends, another reads."""
