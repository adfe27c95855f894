"""`shadow-report replay`: stored primary calls again, to a candidate, under their own pair ids."""
